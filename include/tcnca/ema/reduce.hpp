// From the sums of all sequences of a batch to the gradients of an EMA's parameters.
#pragma once
#include "../block/agent.hpp"
#include "coefficients.hpp"

namespace tcnca::inline TCNCA_TARGET {

template <class A>
struct ema_reduce_params {
  ema_parameters<A> parameters = {};
  ema_gradients<A> gradients = {};
  tensor_view<double, 3> sums = {};  ///< as in ema_backward_params
};

/// Adds the sums of all sequences, in the order of the batch. One item: the gradients of one state in all channels, or
/// that of omega.
template <class Group, element T, ema_shape Shape>
struct ema_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = ema_reduce_params<A>;

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE ema_reduce_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.sums.extent[2] == 0 ? 0 : Shape.states + (Shape.skip ? 1 : 0);
  }
  TCNCA_HOST_DEVICE static constexpr group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    bool const is_omega = item == Shape.states;
    index_t const rows = is_omega ? params.gradients.omega.extent[0] : params.sums.extent[2];
    for (index_t c = group.rank(); c < rows; c += group.size()) {
      if (is_omega) *params.gradients.omega.at(c) = A(total(3 * Shape.states, c));
      else
        params.gradients.store(params.parameters, c, item, A(detail::ema_scale<Shape.states>), total(3 * item, c),
                               total(3 * item + 1, c), total(3 * item + 2, c));
    }
  }

 private:
  TCNCA_HOST_DEVICE double total(index_t kind, index_t row) const {
    double sum = 0;
    for (index_t b = 0; b < params.sums.extent[0]; b++) sum += *params.sums.at(b, kind, row);
    return sum;
  }
};

}  // namespace tcnca
