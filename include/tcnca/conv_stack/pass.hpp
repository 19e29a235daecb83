// A pass of a stack over memory: consecutive layers that one kernel computes from its input to its output. A stack
// whose state exceeds a multiprocessor takes several passes; between two passes the activations are in memory, rounded
// to T.
#pragma once
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The layers [first, last) of a stack.
struct layer_range {
  int first = 0, last = 0;

  TCNCA_HOST_DEVICE constexpr int count() const { return last - first; }
  friend constexpr bool operator==(layer_range const&, layer_range const&) = default;
};

/// Positions of x, beyond its own, that an output of these layers depends on.
TCNCA_HOST_DEVICE constexpr index_t history_of(conv_stack_shape const& s, layer_range layers) {
  index_t sum = 0;
  for (int l = layers.first; l < layers.last; l++) sum += s.history(l);
  return sum;
}

namespace detail {
TCNCA_HOST_DEVICE constexpr int greatest_common_divisor(int a, int b) {
  return b == 0 ? a : greatest_common_divisor(b, a % b);
}
/// a modulo n, in [0, n).
TCNCA_HOST_DEVICE constexpr index_t modulo(index_t a, index_t n) {
  index_t const r = a % n;
  return r < 0 ? r + n : r;
}
}  // namespace detail

/// Parameters of a forward pass. Items are segments of rows (batch, channel): segment s of `segments` has the outputs
/// [s * segment_length, (s + 1) * segment_length) of its row. x and y are the input and output of the pass's layers;
/// every other view is that of the whole stack. Lengths are below 2^31 - 2^20.
template <element T, element Weight = T>
struct conv_stack_pass_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 3> weight;
  tensor_view<Weight const, 2> bias;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T> y;
  sequence_view<accumulate_t<T>> state_out;
  index_t position = 0;
  int segments = 1, segment_length = 0;                 // a segment's length is a multiple of the agent's segment_grain
  bool x_vectorizable = false, y_vectorizable = false;  // vectors of 16 bytes of x and y are aligned
};

/// Parameters of a backward pass, without states. x is the input of the pass's first layer, grad_y the gradient of the
/// output of its last one. sums receives the gradients of the pass's parameters, one row of partial sums for each
/// (batch, part): [batch * parts, layers * taps weights, then `layers` biases if Shape.bias, channels].
template <element T, element Weight = T>
struct conv_stack_backward_pass_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 3> weight;
  tensor_view<Weight const, 2> bias;
  sequence_view<T const> grad_y;
  sequence_view<T> grad_x;
  tensor_view<accumulate_t<T>, 3> sums;
  int segments = 1, segment_length = 0;
  bool x_vectorizable = false, grad_y_vectorizable = false, grad_x_vectorizable = false;
};

}  // namespace tcnca
