// The compile-time description of a chunked attention, and the limits of its run-time extents.
#pragma once
#include "../core/config.hpp"
#include "../core/options.hpp"

namespace tcnca {

/// Attention within chunks of a sequence; no query sees another chunk. With i, j the positions of a query and a key in
/// their chunk:
///   score[i,j] = scale_i q[i] . k[j] (+ bias[chunk - 1 + j - i]) (- alibi_slopes |i - j|)
///   o[i] = sum over the valid j of weight(score[i,j]) v[j]
/// Extents (key_dim, value_dim, chunk, heads) are known at run time: one instantiation serves all of them.
struct chunked_attention_shape {
  attention_function function = attention_function::softmax;
  bool causal = false;        ///< a query sees no later key
  bool bias = false;          ///< a learned table of relative positions
  bool dropout = false;       ///< of the weights
  bool alibi = false;         ///< biases proportional to the distance of query and key, without a table
  bool window = false;        ///< with causal: a query sees only the latest keys, as many as the argument `window` says
  bool grouped = false;       ///< heads of queries share heads of keys and values
  bool head_lengths = false;  ///< each head of each sequence has its own length
  /// Sequences packed one after another, or their states, positions and random numbers in tables of the executor's
  /// memory.
  bool packed = false;

  /// Whether there is an option that the agents for clusters do not have.
  TCNCA_HOST_DEVICE constexpr bool has_options() const { return alibi || window || grouped || head_lengths || packed; }

  TCNCA_HOST_DEVICE friend constexpr bool operator==(chunked_attention_shape const& a,
                                                     chunked_attention_shape const& b) {
    return a.function == b.function && a.causal == b.causal && a.bias == b.bias && a.dropout == b.dropout &&
           a.alibi == b.alibi && a.window == b.window && a.grouped == b.grouped && a.head_lengths == b.head_lengths &&
           a.packed == b.packed;
  }
  template <class F>
  constexpr void fields(F f) const {
    f("function", function), f("causal", causal), f("bias", bias), f("dropout", dropout);
    f("alibi", alibi), f("window", window), f("grouped", grouped), f("head_lengths", head_lengths), f("packed", packed);
  }
};

/// Limits of the run-time extents.
struct chunked_attention_limits {
  static constexpr int key_dim_min = 16, key_dim = 256, value_dim_min = 16, value_dim = 2048, multiple = 8,
                       chunk = 16384;
};

}  // namespace tcnca
