// From the sums over each sequence to the gradients of a stack's parameters.
#pragma once
#include "../block/agent.hpp"
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Agent that adds the sums of all sequences of a batch, in order and in fp64, and writes the gradients of weights,
/// biases and omega. An item is one row of the sums.
template <class Group, element T, conv_stack_shape Shape>
struct conv_stack_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  struct params_type {
    tensor_view<A, 3> sums;  // [batch, conv_stack_shape::parameters(), channels]
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
    constexpr int L = Shape.layers(), K = Shape.taps, weights = L * K;
    int const direction_index = int(row) / Shape.parameters_per_direction(),
              r = int(row) % Shape.parameters_per_direction();
    for (index_t c = group.rank(); c < params.sums.extent[2]; c += group.size()) {
      double sum = 0;
      for (index_t b = 0; b < params.sums.extent[0]; b++) sum += double(*params.sums.at(b, row, c));
      A const total = A(sum);
      if (direction_index == Shape.directions()) *params.grad_omega.at(c) = total;
      else if (r < weights) *params.grad_weight.at(direction_index * L + r / K, r % K, c) = total;
      else *params.grad_bias.at(direction_index * L + r - weights, c) = total;
    }
  }
};

}  // namespace tcnca
