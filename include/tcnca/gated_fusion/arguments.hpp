// The arguments of the gates. They depend on the element type only, not on a shape, so that one table of functions
// can hold instantiations of many shapes.
#pragma once
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"

namespace tcnca {

/// The arguments of gated_fusion::mix, where shapes and types are described. `Shape` is the operation's shape.
template <class T>
struct gated_fusion_mix_args {
  tensor_view<T const, 3> z = {};  ///< the pre-activation of the shared representation
  tensor_view<accumulate_t<T> const, 1> gq = {}, mq = {}, gk = {}, mk = {};
  tensor_view<T, 3> q = {}, k = {};
};

/// The arguments of gated_fusion::mix_backward. Gradients that are computed are overwritten. Each of them is optional:
/// one that is absent is not stored. If all are absent, the call does nothing.
template <class T>
struct gated_fusion_mix_backward_args {
  tensor_view<T const, 3> z = {};
  tensor_view<accumulate_t<T> const, 1> gq = {}, gk = {};
  tensor_view<T const, 3> grad_q = {}, grad_k = {};
  tensor_view<T, 3> grad_z = {};  ///< optional, as those of the parameters
  tensor_view<accumulate_t<T>, 1> grad_gq = {}, grad_mq = {}, grad_gk = {}, grad_mk = {};
};

/// The arguments of gated_fusion::reset.
template <class T>
struct gated_fusion_reset_args {
  tensor_view<T const, 3> o = {};  ///< the attention's output
  tensor_view<T const, 3> r = {};  ///< the pre-activation of the gate
  tensor_view<T, 3> y = {};
};

/// The arguments of gated_fusion::reset_backward. Gradients are overwritten, and optional as in mix_backward.
template <class T>
struct gated_fusion_reset_backward_args {
  tensor_view<T const, 3> o = {}, r = {}, grad_y = {};
  tensor_view<T, 3> grad_o = {}, grad_r = {};
};

/// The arguments of gated_fusion::update.
template <class T>
struct gated_fusion_update_args {
  tensor_view<T const, 3> x = {};   ///< the layer's input
  tensor_view<T const, 3> u = {};   ///< if Shape.update_gate: the pre-activation of the gate
  tensor_view<T const, 3> hx = {};  ///< if Shape.mixer_path: the mixer's part of the candidate's pre-activation
  tensor_view<T const, 3> h = {};   ///< the attention's part of the candidate's pre-activation
  tensor_view<T, 3> y = {};
  double dropout = 0;  ///< if Shape.dropout: probability in [0, 1)
  uint64 seed = 0, offset = 0;
  /// [2], seed and offset in the executor's memory, which replace the two numbers; only if Shape.dropout. A captured
  /// graph reads them when it is replayed, so that each replay may have masks of its own.
  tensor_view<uint64 const, 1> random_state = {};
};

/// The arguments of gated_fusion::update_backward. Gradients are overwritten, and optional as in mix_backward. grad_hx
/// has the values of grad_h; it is there because the two belong to different products.
template <class T>
struct gated_fusion_update_backward_args {
  tensor_view<T const, 3> x = {};   ///< if Shape.update_gate
  tensor_view<T const, 3> u = {};   ///< if Shape.update_gate
  tensor_view<T const, 3> hx = {};  ///< if Shape.mixer_path
  tensor_view<T const, 3> h = {}, grad_y = {};
  tensor_view<T, 3> grad_x = {};
  tensor_view<T, 3> grad_u = {};   ///< if Shape.update_gate
  tensor_view<T, 3> grad_hx = {};  ///< if Shape.mixer_path
  tensor_view<T, 3> grad_h = {};
  double dropout = 0;  ///< dropout, seed, offset, random_state: as in the forward pass
  uint64 seed = 0, offset = 0;
  tensor_view<uint64 const, 1> random_state = {};
};

}  // namespace tcnca
