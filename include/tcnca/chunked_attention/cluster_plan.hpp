// How a cluster of sm_90a divides the forward pass, and what lies where in the shared memory of its groups.
#pragma once
#include "../block/pipeline.hpp"
#include "../block/wgmma.hpp"
#include "forward_params.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The groups of a cluster are numbered [row][column]: a row has 128 queries, a column 256 columns of the values.
struct chunked_attention_cluster_plan {
  static constexpr int queries = 128, keys = 64, group_columns = 256, unit = 32, consumers = 256;
  static constexpr int most_columns = 4, most_stages = 8;
  static constexpr size_t memory_limit = target{90}.shared_memory_bytes();

  int rows = 1, columns = 1;  // groups that divide the queries, and the values
  int value_tiles = 1;        // items per block of queries
  int key_dim = 0;
  int weight_buffers = 0;  // blocks of weights, 128 x 64
  int value_stages = 0;    // units of values, 32 x 256

  /// Few, narrow tiles: the scores are computed once per value tile. Two rows, if few of their queries do not exist.
  static constexpr chunked_attention_cluster_plan of(int key_dim, int value_dim, index_t chunk) {
    chunked_attention_cluster_plan p{.key_dim = key_dim};
    index_t const blocks = divide_up(chunk, index_t(queries));
    p.rows = blocks % 2 == 0 || blocks > 8 ? 2 : 1;
    int const groups = divide_up(value_dim, group_columns);
    for (int most = most_columns; p.value_stages < 4; most--) {
      p.value_tiles = divide_up(groups, most);
      p.columns = divide_up(groups, p.value_tiles);
      // A group sends the weights of its next block while those of this round, but for the last, are still in use.
      p.weight_buffers = p.columns + 1;
      p.value_stages = 0;
      size_t const others = size_t(p.end());
      p.value_stages = others > memory_limit ? 0 : int((memory_limit - others) / size_t(stage_bytes + 16));
      p.value_stages = min_of(p.value_stages, most_stages);
    }
    return p;
  }

  // Bytes and byte offsets in shared memory. Tiles are panels (wgmma_tile).
  static constexpr int weights_bytes = wgmma_tile::bytes(queries, keys),
                       stage_bytes = wgmma_tile::bytes(unit, group_columns), biases_bytes = (queries + keys) * 4;
  TCNCA_HOST_DEVICE constexpr int keys_at() const { return wgmma_tile::bytes(queries, key_dim); }
  TCNCA_HOST_DEVICE constexpr int weights_at() const { return keys_at() + wgmma_tile::bytes(keys, key_dim); }
  TCNCA_HOST_DEVICE constexpr int values_at() const { return weights_at() + weight_buffers * weights_bytes; }
  TCNCA_HOST_DEVICE constexpr int row_values_at() const { return values_at() + value_stages * stage_bytes; }
  /// Two times a number per query from each group of the row.
  TCNCA_HOST_DEVICE constexpr int biases_at() const { return row_values_at() + 2 * columns * queries * 4; }
  /// Two blocks of biases.
  TCNCA_HOST_DEVICE constexpr int flags_at() const { return biases_at() + 2 * biases_bytes; }
  /// Two flags per warp.
  TCNCA_HOST_DEVICE constexpr int barriers_at() const { return flags_at() + 2 * consumers / warp_size * 4; }
  /// Rings: queries, keys, values, biases, weights of two warpgroups; two barriers of row values for each.
  TCNCA_HOST_DEVICE constexpr int end() const {
    return barriers_at() + 16 * (1 + 1 + value_stages + 2 + 2 * weight_buffers) + 8 * 4;
  }
};

/// Parameters of the agent for clusters.
template <element T>
struct chunked_attention_cluster_params {
  chunked_attention_forward_params<T> forward;
  chunked_attention_cluster_plan plan;
  tensor_map q = {}, k = {}, v = {};  // of tiles of 64 columns x 32 rows
};

}  // namespace tcnca
