// The arguments of chunked attention. They depend on the element type only, not on a shape, so that one table of
// functions can hold instantiations of many shapes.
#pragma once
#include "../core/numeric.hpp"
#include "../core/tensor.hpp"

namespace tcnca {

/// The arguments of chunked_attention::forward, where shapes and types are described. `Shape` is the operation's shape.
template <class T>
struct chunked_attention_forward_args {
  tensor_view<T const, 4> q = {}, k = {}, v = {};
  tensor_view<accumulate_t<T> const, 2> bias = {};          ///< if Shape.bias
  tensor_view<accumulate_t<T> const, 2> alibi_slopes = {};  ///< if Shape.alibi
  tensor_view<index_t const, 1> lengths = {};               ///< optional: all keys are valid
  tensor_view<index_t const, 2> head_lengths = {};          ///< if Shape.head_lengths
  tensor_view<T const, 4> keys_in = {};                     ///< needed where `position` is not a multiple of chunk
  tensor_view<T const, 4> values_in = {};
  tensor_view<T, 4> o = {};
  tensor_view<accumulate_t<T>, 4> lse = {};  ///< softmax, optional: what the backward pass needs
  tensor_view<T, 4> keys_out = {};           ///< optional
  tensor_view<T, 4> values_out = {};
  index_t chunk = 0;     ///< 1 to 16384
  index_t position = 0;  ///< absolute position of the first query
  index_t window = 0;    ///< if Shape.window: keys that a query sees at most, itself included; at least 1
  double scale = 0;      ///< 0: the default; must be finite in accumulate_t<T>
  double dropout = 0;    ///< if Shape.dropout: probability, below 1
  uint64 seed = 0, offset = 0;
  // If Shape.packed, all optional.
  tensor_view<int32 const, 1> offsets = {};        ///< packed sequences
  index_t max_length = 0;                          ///< with offsets: no sequence is longer; 0: the length of q
  tensor_view<int32 const, 1> slots = {};          ///< the row of the states that each sequence uses
  tensor_view<index_t const, 1> positions = {};    ///< the position of each sequence, instead of `position`
  tensor_view<uint64 const, 1> random_state = {};  ///< seed and offset, instead of `seed` and `offset`
};

/// The arguments of chunked_attention::backward. The inputs are those of the forward pass, o and lse (softmax) its
/// results. Each gradient is optional; those that are present are overwritten.
template <class T>
struct chunked_attention_backward_args {
  tensor_view<T const, 4> q = {}, k = {}, v = {};
  tensor_view<accumulate_t<T> const, 2> bias = {};
  tensor_view<accumulate_t<T> const, 2> alibi_slopes = {};
  tensor_view<index_t const, 1> lengths = {};
  tensor_view<index_t const, 2> head_lengths = {};
  tensor_view<T const, 4> keys_in = {};
  tensor_view<T const, 4> values_in = {};
  tensor_view<T const, 4> o = {};
  tensor_view<accumulate_t<T> const, 4> lse = {};
  tensor_view<T const, 4> grad_o = {};
  tensor_view<accumulate_t<T> const, 4> grad_keys_out =
      {};  ///< optional, zero if absent; slots that forward writes are read
  tensor_view<accumulate_t<T> const, 4> grad_values_out = {};
  tensor_view<T, 4> grad_q = {}, grad_k = {}, grad_v = {};
  tensor_view<accumulate_t<T>, 2> grad_bias = {};
  tensor_view<accumulate_t<T>, 4> grad_keys_in = {};  ///< only with keys_in; slots that forward reads are written
  tensor_view<accumulate_t<T>, 4> grad_values_in = {};
  index_t chunk = 0;
  index_t position = 0;
  index_t window = 0;
  double scale = 0;
  double dropout = 0;
  uint64 seed = 0, offset = 0;
  tensor_view<int32 const, 1> offsets = {};  ///< the next five as in the forward pass
  index_t max_length = 0;
  tensor_view<int32 const, 1> slots = {};
  tensor_view<index_t const, 1> positions = {};
  tensor_view<uint64 const, 1> random_state = {};
};

/// The arguments of chunked_attention::rotary.
/// a, b: [heads, dim], dim even, halves a1 | a2; bias: [heads, 2 chunk - 1], the table of MEGA's rotary relative bias
/// (content-free):
/// bias[chunk - 1 + j - i] = sum_k (a1k b1k + a2k b2k) cos((i - j) theta_k) + (a1k b2k - a2k b1k) sin((i - j)
/// theta_k), theta_k = 10000^(-2k / dim).
template <class T>
struct chunked_attention_rotary_args {
  tensor_view<accumulate_t<T> const, 2> a = {};
  tensor_view<accumulate_t<T> const, 2> b = {};
  tensor_view<accumulate_t<T>, 2> bias = {};
  index_t chunk = 0;
};

/// The arguments of chunked_attention::rotary_backward. Both gradients are optional; those that are present are
/// overwritten.
template <class T>
struct chunked_attention_rotary_backward_args {
  tensor_view<accumulate_t<T> const, 2> a = {};
  tensor_view<accumulate_t<T> const, 2> b = {};
  tensor_view<accumulate_t<T> const, 2> grad_bias = {};
  tensor_view<accumulate_t<T>, 2> grad_a = {};
  tensor_view<accumulate_t<T>, 2> grad_b = {};
  index_t chunk = 0;
};

}  // namespace tcnca
