// What a chunked attention is: everything known at compile time; and its tuning.
#pragma once
#include "../core/config.hpp"
#include "../core/options.hpp"

namespace tcnca {

/// Attention within chunks of a sequence; no query sees another chunk. With i, j the positions of a query and a key in their chunk:
///   score[i,j] = scale_i q[i] . k[j] (+ bias[chunk - 1 + j - i]),   o[i] = sum over the valid j of weight(score[i,j]) v[j].
/// Extents (key_dim, value_dim, chunk, heads) are known at run time: one instantiation serves all of them.
struct chunked_attention_shape {
  attention_function function = attention_function::softmax;
  bool causal = false;   ///< a query sees no later key
  bool bias = false;     ///< a learned table of relative positions
  bool dropout = false;  ///< of the weights
};

/// Tuning of one direction: plain values, compared field by field.
struct chunked_attention_policy {
  int width;       ///< lanes of a pack
  int tile_rows;   ///< rows and
  int tile_packs;  ///< packs of the part of a product that one thread keeps in registers
  int queries;  ///< of a block; forward: a multiple of tile_rows and of the lanes of tile_packs; backward: of tile_rows
  int keys;     ///< of a block, likewise; backward: a multiple of both
  int panel;    ///< columns of v in fast memory at a time (forward)
  int value_tile;  ///< columns of v to an item; scores are computed again for each (forward)
  int splits;      ///< a chunk's keys are shared out to several items until there are about this many items (backward)
  int threads;     ///< of a group
  size_t shared_memory_bytes;  ///< fast memory of a group; what does not fit goes to the workspace
  bool tensor_cores =
      false;  ///< products on tensor cores, where there are and T has 16 bits; then 16 queries (backward: or keys) to 32 threads
  int cluster =
      0;  ///< groups that share their weights, each with a value_tile of its own, on sm_90a (forward, tensor_cores); 0: none

  friend constexpr bool operator==(chunked_attention_policy const&, chunked_attention_policy const&) = default;
};

/// Limits of the run-time extents.
struct chunked_attention_limits {
  static constexpr int key_dim_min = 16, key_dim = 256, value_dim_min = 16, value_dim = 2048, multiple = 8,
                       chunk = 16384;
};

}  // namespace tcnca
