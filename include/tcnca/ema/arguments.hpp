// The arguments of the exponential moving average. They depend on the element type only, not on a shape, so that one
// table of functions can hold instantiations of many shapes.
#pragma once
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"

namespace tcnca {

/// The arguments of ema::forward, where shapes and types are described. `Shape` is the operation's shape.
template <class T>
struct ema_forward_args {
  sequence_view<T const> x = {};
  tensor_view<accumulate_t<T> const, 2> delta = {};
  tensor_view<accumulate_t<T> const, 2> alpha = {};
  tensor_view<accumulate_t<T> const, 2> beta = {};
  tensor_view<accumulate_t<T> const, 2> gamma = {};
  tensor_view<accumulate_t<T> const, 1> omega = {};    ///< if Shape.skip
  sequence_view<accumulate_t<T> const> state_in = {};  ///< optional; absent: zero
  sequence_view<T> y = {};
  sequence_view<accumulate_t<T>> state_out = {};  ///< optional
  tensor_view<int32 const, 1> offsets = {};       ///< optional: packed sequences
  index_t max_length = 0;                         ///< with offsets: no sequence is longer; 0: the length of x
  tensor_view<int32 const, 1> slots = {};         ///< optional: the row of the states that each sequence uses
};

/// The arguments of ema::backward. The inputs are those of the forward pass. Results are overwritten. Each of them,
/// from grad_x on, is optional: one that is absent is not stored. If all are absent, the call does nothing.
template <class T>
struct ema_backward_args {
  sequence_view<T const> x = {};
  tensor_view<accumulate_t<T> const, 2> delta = {};
  tensor_view<accumulate_t<T> const, 2> alpha = {};
  tensor_view<accumulate_t<T> const, 2> beta = {};
  tensor_view<accumulate_t<T> const, 2> gamma = {};
  tensor_view<accumulate_t<T> const, 1> omega = {};    ///< if Shape.skip
  sequence_view<accumulate_t<T> const> state_in = {};  ///< optional; absent: zero
  sequence_view<T const> grad_y = {};
  sequence_view<accumulate_t<T> const> grad_state_out = {};  ///< optional; absent: zero
  sequence_view<T> grad_x = {};                              ///< the first of the results
  tensor_view<accumulate_t<T>, 2> grad_delta = {};
  tensor_view<accumulate_t<T>, 2> grad_alpha = {};
  tensor_view<accumulate_t<T>, 2> grad_beta = {};
  tensor_view<accumulate_t<T>, 2> grad_gamma = {};
  tensor_view<accumulate_t<T>, 1> grad_omega = {};    ///< if Shape.skip
  sequence_view<accumulate_t<T>> grad_state_in = {};  ///< only with state_in
  tensor_view<int32 const, 1> offsets = {};           ///< the next three as in the forward pass
  index_t max_length = 0;
  tensor_view<int32 const, 1> slots = {};
};

/// The arguments of ema::kernel.
template <class T>
struct ema_kernel_args {
  tensor_view<accumulate_t<T> const, 2> delta = {};
  tensor_view<accumulate_t<T> const, 2> alpha = {};
  tensor_view<accumulate_t<T> const, 2> beta = {};
  tensor_view<accumulate_t<T> const, 2> gamma = {};
  tensor_view<accumulate_t<T>, 2> kappa = {};
};

/// The arguments of ema::kernel_backward. Gradients are overwritten, and optional as in ema_backward_args.
template <class T>
struct ema_kernel_backward_args {
  tensor_view<accumulate_t<T> const, 2> delta = {};
  tensor_view<accumulate_t<T> const, 2> alpha = {};
  tensor_view<accumulate_t<T> const, 2> beta = {};
  tensor_view<accumulate_t<T> const, 2> gamma = {};
  tensor_view<accumulate_t<T> const, 2> grad_kappa = {};
  tensor_view<accumulate_t<T>, 2> grad_delta = {};
  tensor_view<accumulate_t<T>, 2> grad_alpha = {};
  tensor_view<accumulate_t<T>, 2> grad_beta = {};
  tensor_view<accumulate_t<T>, 2> grad_gamma = {};
};

}  // namespace tcnca
