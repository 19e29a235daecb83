// From partial sums to the gradients of a stack's parameters.
#pragma once
#include "../block/agent.hpp"
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"
#include "pass.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// All layers of a stack.
TCNCA_HOST_DEVICE constexpr layer_range all_layers(conv_stack_shape const& s) { return {0, s.layers()}; }

/// Whether a backward call asks for gradients of parameters.
template <class Args>
constexpr bool has_parameter_gradients(Args const& a) {
  return a.grad_weight.given() || a.grad_bias.given() || a.grad_omega.given();
}

/// Agent that adds the partial sums of all sequences of a batch, in order and in fp64, and writes the gradients of the
/// layers' weights and biases and of omega, as far as they are present. An item is one row of the sums.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers = all_layers(Shape)>
struct conv_stack_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  struct params_type {
    tensor_view<A, 3> sums;  // [partial sums, parameters of Layers (and directions, omega), channels]
    tensor_view<A, 3> grad_weight;
    tensor_view<A, 2> grad_bias;
    tensor_view<A, 1> grad_omega;
  };
  static constexpr index_t items(params_type const& p) { return p.sums.extent[2] > 0 ? p.sums.extent[1] : 0; }
  static constexpr group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_reduce_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t row) const {
    constexpr int L = Shape.layers(), K = Shape.taps, weights = Layers.count() * K;
    constexpr int of_a_direction = weights + (Shape.bias ? Layers.count() : 0);
    int const direction_index = int(row) / of_a_direction, r = int(row) % of_a_direction;
    bool const is_omega = direction_index == Shape.directions(), is_weight = !is_omega && r < weights;
    bool const present = is_omega    ? params.grad_omega.present()
                         : is_weight ? params.grad_weight.present()
                                     : params.grad_bias.present();
    for (index_t c = group.rank(); present && c < params.sums.extent[2]; c += group.size()) {
      double sum = 0;
      for (index_t i = 0; i < params.sums.extent[0]; i++) sum += double(*params.sums.at(i, row, c));
      A const total = A(sum);
      int const first = direction_index * L + Layers.first;
      if (is_omega) *params.grad_omega.at(c) = total;
      else if (is_weight) *params.grad_weight.at(first + r / K, r % K, c) = total;
      else *params.grad_bias.at(first + r - weights, c) = total;
    }
  }
};

}  // namespace tcnca
