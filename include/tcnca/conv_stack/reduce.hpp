// From the sums over each sequence to the gradients of a stack's parameters.
#pragma once
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Adds the sums of all sequences of a batch, in their order, into the gradients of weights, biases and omega. An item is one row of sums.
template <class Group, element T, conv_stack_shape Shape>
struct conv_stack_reduce_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  struct params_type {
    tensor_view<A, 3> sums;
    tensor_view<A, 3> grad_weight;
    tensor_view<A, 2> grad_bias;
    tensor_view<A, 1> grad_omega;
  };
  static constexpr int weights = Shape.layers() * Shape.taps,
                       direction_index = weights + (Shape.bias ? Shape.layers() : 0);
  static constexpr index_t items(params_type const& p) { return p.sums.extent[1]; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE conv_stack_reduce_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t row) const {
    int const h = int(row) / direction_index, r = int(row) % direction_index;
    for (index_t c = group.rank(); c < params.sums.extent[2]; c += group.size()) {
      double sum = 0;
      for (index_t b = 0; b < params.sums.extent[0]; b++) sum += double(*params.sums.at(b, row, c));
      A const total = A(sum);
      if (h == Shape.directions()) *params.grad_omega.at(c) = total;
      else if (r < weights) *params.grad_weight.at(h * Shape.layers() + r / Shape.taps, r % Shape.taps, c) = total;
      else *params.grad_bias.at(h * Shape.layers() + r - weights, c) = total;
    }
  }
};

}  // namespace tcnca
