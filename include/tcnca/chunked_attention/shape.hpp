// The compile-time description of a chunked attention, and the limits of its run-time extents.
#pragma once
#include "../core/config.hpp"
#include "../core/options.hpp"

namespace tcnca {

/// Attention within chunks of a sequence; no query sees another chunk. With i, j the positions of a query and a key in
/// their chunk:
///   score[i,j] = scale_i q[i] . k[j] (+ bias[chunk - 1 + j - i])
///   o[i] = sum over the valid j of weight(score[i,j]) v[j]
/// Extents (key_dim, value_dim, chunk, heads) are known at run time: one instantiation serves all of them.
struct chunked_attention_shape {
  attention_function function = attention_function::softmax;
  bool causal = false;   ///< a query sees no later key
  bool bias = false;     ///< a learned table of relative positions
  bool dropout = false;  ///< of the weights
};

/// Limits of the run-time extents.
struct chunked_attention_limits {
  static constexpr int key_dim_min = 16, key_dim = 256, value_dim_min = 16, value_dim = 2048, multiple = 8,
                       chunk = 16384;
};

}  // namespace tcnca
