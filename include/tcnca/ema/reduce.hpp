// From the gradients of an EMA's coefficients to those of its parameters.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Gradients of an EMA's parameters, shaped like them.
template <class A>
struct ema_gradients {
  tensor_view<A, 2> delta, alpha, beta, gamma;
  tensor_view<A, 1> omega;

  /// From those of u = p beta, w = gamma / sqrt(states) and q = 1 - p a, of one channel and state. They are fp64 because two of them nearly
  /// cancel in the gradient of delta.
  TCNCA_HOST_DEVICE void store(ema_parameters<A> const& of, index_t row, index_t state, A scale, double of_u,
                               double of_w, double of_q) const {
    detail::ema_coefficients<A, 1> const k(of, row, state, 1, scale);
    double const p = double(k.p.lane(0)), a = double(k.a.lane(0));
    *gamma.at(row, state) = A(of_w * double(scale));
    *beta.at(row, state) = A(of_u * p);
    *delta.at(row, state) = A((of_u * double(k.beta.lane(0)) - of_q * a) * p * (1 - p));
    *alpha.at(row, state) = A(-of_q * p * a * (1 - a));
  }
};

/// Adds up the sums of all sequences of a batch, in their order. One item: a state's, or omega's, of all channels.
template <class Group, element T, ema_shape Shape>
struct ema_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  static constexpr int group_size = Group::size();
  struct params_type {
    ema_parameters<A> parameters;
    ema_gradients<A> gradients;
    tensor_view<double, 3> sums;
  };
  static constexpr index_t items(params_type const&) { return Shape.states + (Shape.skip ? 1 : 0); }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE ema_reduce_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    bool const of_omega = item == Shape.states;
    index_t const rows = of_omega ? params.gradients.omega.extent[0] : params.sums.extent[2];
    for (index_t c = group.rank(); c < rows; c += group.size()) {
      if (of_omega) *params.gradients.omega.at(c) = A(total(3 * Shape.states, c));
      else
        params.gradients.store(params.parameters, c, item, A(detail::ema_scale<Shape.states>), total(3 * item, c),
                               total(3 * item + 1, c), total(3 * item + 2, c));
    }
  }

 private:
  TCNCA_HOST_DEVICE double total(index_t row, index_t c) const {
    double sum = 0;
    for (index_t b = 0; b < params.sums.extent[0]; b++) sum += *params.sums.at(b, row, c);
    return sum;
  }
};

}  // namespace tcnca
