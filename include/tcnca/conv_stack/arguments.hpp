// The arguments of the convolution stack. They depend on the types of elements and weights only, not on a shape, so
// that one table of functions can hold instantiations of many shapes.
#pragma once
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"

namespace tcnca {

/// The arguments of conv_stack::forward, where shapes and types are described. `Shape` is the operation's shape.
/// `Weight`: the type that Shape.weights names, T or accumulate_t<T>.
template <class T, class Weight = T>
struct conv_stack_forward_args {
  sequence_view<T const> x = {};
  tensor_view<Weight const, 3> weight = {};
  tensor_view<Weight const, 2> bias = {};              ///< if Shape.bias
  tensor_view<Weight const, 1> omega = {};             ///< if Shape.skip
  sequence_view<accumulate_t<T> const> state_in = {};  ///< optional; zero where absent
  sequence_view<T> y = {};
  sequence_view<accumulate_t<T>> state_out = {};  ///< optional
  index_t position = 0;
  tensor_view<int32 const, 1> offsets = {};      ///< optional: packed sequences
  index_t max_length = 0;                        ///< with offsets: no sequence is longer; 0: the length of x
  tensor_view<int32 const, 1> slots = {};        ///< optional: the row of the states that each sequence uses
  tensor_view<index_t const, 1> positions = {};  ///< optional: the position of each sequence, instead of `position`
};

/// The arguments of conv_stack::backward. The inputs are those of the forward pass. Results are overwritten. Each of
/// them, from grad_x on, is optional: one that is absent is not stored. If all are absent, the call does nothing.
template <class T, class Weight = T>
struct conv_stack_backward_args {
  sequence_view<T const> x = {};
  tensor_view<Weight const, 3> weight = {};
  tensor_view<Weight const, 2> bias = {};
  tensor_view<Weight const, 1> omega = {};
  sequence_view<accumulate_t<T> const> state_in = {};
  sequence_view<T const> grad_y = {};
  sequence_view<accumulate_t<T> const> grad_state_out = {};  ///< optional; zero where absent
  sequence_view<T> grad_x = {};                              ///< the first of the results
  tensor_view<accumulate_t<T>, 3> grad_weight = {};
  tensor_view<accumulate_t<T>, 2> grad_bias = {};
  tensor_view<accumulate_t<T>, 1> grad_omega = {};
  sequence_view<accumulate_t<T>> grad_state_in = {};  ///< only with state_in
  index_t position = 0;
  tensor_view<int32 const, 1> offsets = {};  ///< the next four as in the forward pass
  index_t max_length = 0;
  tensor_view<int32 const, 1> slots = {};
  tensor_view<index_t const, 1> positions = {};
};

}  // namespace tcnca
