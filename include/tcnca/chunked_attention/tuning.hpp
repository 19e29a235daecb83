// Tuning of chunked attention: the policy of one direction, its constraints, and the defaults.
#pragma once
#include "../arch/bf16_product.hpp"
#include "../arch/host.hpp"
#include "../core/numeric.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Tuning of one direction: plain values, compared field by field. An agent works on blocks of query_block x key_block
/// scores. Backward on tensor cores, the rows of a block may also be keys: then query_block is the number of keys,
/// key_block the number of queries.
struct chunked_attention_policy {
  int width;                   ///< lanes of a pack
  int tile_rows;               ///< rows of the register tile of one thread
  int tile_packs;              ///< packs in a row of the register tile
  int query_block;             ///< queries of a block
  int key_block;               ///< keys of a block
  int value_panel;             ///< columns of v in shared memory at a time (forward)
  int value_tile;              ///< columns of v per work item; each item computes the scores again (forward)
  int splits;                  ///< the keys of a chunk are divided until there are about this many items (backward)
  int threads;                 ///< threads of a group; each of several has one register tile of a block of scores
  size_t shared_memory_bytes;  ///< shared memory of a group; blocks of one thread that do not fit go to the workspace
  bool tensor_cores = false;   ///< tensor cores for 16-bit T where the target has them; query_block is 16 per warp
  bool clusters = false;       ///< with tensor_cores: wgmma and clusters where the device is sm_90a
  bool bf16_products = false;  ///< CPU, bf16: weights are rounded to bf16, products have operands of bf16

  friend constexpr bool operator==(chunked_attention_policy const&, chunked_attention_policy const&) = default;
  template <class F>
  constexpr void fields(F f) const {
    f("width", width), f("tile_rows", tile_rows), f("tile_packs", tile_packs), f("query_block", query_block);
    f("key_block", key_block), f("value_panel", value_panel), f("value_tile", value_tile), f("splits", splits);
    f("threads", threads), f("shared_memory_bytes", shared_memory_bytes), f("tensor_cores", tensor_cores);
    f("clusters", clusters), f("bf16_products", bf16_products);
  }

  /// Neighbouring threads whose tiles are in the same rows: eight packs of 16 bytes are a line of shared memory.
  static constexpr int tile_lanes = 8;

  TCNCA_HOST_DEVICE constexpr int tile_columns() const { return tile_packs * width; }
  /// What the generic forward agent requires: blocks, panels and value tiles are whole register tiles.
  TCNCA_HOST_DEVICE constexpr bool valid_forward() const {
    return query_block % tile_rows == 0 && query_block % tile_columns() == 0 && key_block % tile_rows == 0 &&
           key_block % 4 == 0 && value_panel % tile_columns() == 0 && value_tile % value_panel == 0 &&
           (threads == 1 || (valid_shared_products() && value_panel == key_block));
  }
  /// What the generic backward agent requires.
  TCNCA_HOST_DEVICE constexpr bool valid_backward() const {
    return query_block % tile_rows == 0 && key_block % tile_rows == 0 && key_block % 4 == 0 &&
           key_block % tile_columns() == 0 && (threads == 1 || valid_shared_products());
  }
  /// Of a group of several threads: a block of scores has one register tile per thread, and a pack of queries has
  /// whole shares of four keys.
  TCNCA_HOST_DEVICE constexpr bool valid_shared_products() const {
    int const columns = tile_lanes * tile_columns(), shares = threads * width / query_block;
    return query_block * key_block == threads * tile_rows * tile_columns() && tile_rows % width == 0 &&
           query_block % columns == 0 && key_block % columns == 0 && shares * query_block == threads * width &&
           key_block % (4 * shares) == 0;
  }
  /// What the agents on tensor cores require: 16 rows per warp, columns in steps of 16 up to 64, value tiles in
  /// 128-byte lines.
  TCNCA_HOST_DEVICE constexpr bool valid_tensor_cores() const {
    return threads % 32 == 0 && query_block == threads / 32 * 16 && key_block % 16 == 0 && key_block <= 64 &&
           value_tile % 64 == 0;
  }
  /// What the agents for clusters require: the tile sizes of wgmma, for two warpgroups.
  TCNCA_HOST_DEVICE constexpr bool valid_cluster() const {
    return threads == 256 && query_block == 128 && key_block == 64 && value_tile == 256;
  }
};

/// The default tuning. A tuning is any type with these two static functions.
template <element T, chunked_attention_shape Shape>
struct default_chunked_attention_tuning {
  static constexpr chunked_attention_policy forward(target t) {
    return t.is_cpu()                                     ? cpu(192, 192)
           : t.compute_capability >= 80 && sizeof(T) == 2 ? tensor_cores()
           : fp64                                         ? cuda(64, 64, 2)
                                                          : cuda(64, 128, 2);
  }
  static constexpr chunked_attention_policy backward(target t) {
    return t.is_cpu()                                     ? cpu(96, 192)
           : t.compute_capability >= 80 && sizeof(T) == 2 ? tensor_cores()
           : fp64                                         ? cuda(64, 64, 2)
                                                          : cuda(128, 64, 2);
  }

 private:
  static constexpr bool fp64 = sizeof(accumulate_t<T>) == 8;

  // Zen 5, one thread, fp32, key_dim 128, value_dim 1024, chunk 2048 | 128, 2026-11-24, % of 288 GFLOP/s:
  //   forward:  tile    queries x keys  panel  2048   128
  //             12 x 2  192 x 192       256    86.5   74.3   (86.7 | 76.3 when measured next to 6 x 4)
  //             12 x 2   96 x 192       256    83.0   71.0
  //             12 x 2  192 x 384       256    86.6   74.7
  //             12 x 2  192 x 192       128    85.2   71.0
  //              8 x 3  192 x 192       192    85.5   72.1
  //              6 x 4  192 x 192       256    84.8   76.0
  //   backward: 12 x 2   96 x 192              88.4   73.7
  //             12 x 2   48 x  96              79.9   69.1
  //             12 x 2   96 x  96              81.8   69.3
  //             12 x 2  192 x  96              83.0   72.6
  //             12 x 2   96 x 288              88.2   73.2
  //              6 x 4   96 x 192              87.3   74.4
  static constexpr chunked_attention_policy cpu(int query_block, int key_block) {
    constexpr int width = detail::register_bytes / int(sizeof(accumulate_t<T>));
    constexpr bool many_registers = detail::register_bytes == 64;
    return {.width = width,
            .tile_rows = many_registers ? 12 : 6,
            .tile_packs = 2,
            .query_block = query_block,
            .key_block = key_block,
            .value_panel = 16 * width,
            .value_tile = chunked_attention_limits::value_dim,
            .splits = 16,
            .threads = 1,
            .shared_memory_bytes = ~size_t(0),
            .bf16_products = same<T, bf16> && detail::has_fast_bf16_products};
  }
  // 80 KB, so that two groups share a multiprocessor of an A100 and other devices can execute them too: a group
  // computes while the other one waits for memory. Tiles of 8 x 8 in fp32; of 8 x 4 in fp64, whose sums are as many
  // registers. Counted, not measured on a device.
  static constexpr chunked_attention_policy cuda(int query_block, int key_block, int tile_packs) {
    return {.width = 16 / int(sizeof(accumulate_t<T>)),
            .tile_rows = 8,
            .tile_packs = tile_packs,
            .query_block = query_block,
            .key_block = key_block,
            .value_panel = key_block,
            .value_tile = fp64 ? 64 : 128,
            .splits = 264,
            .threads = 128,
            .shared_memory_bytes = 96 * 1024};
  }
  // 163 KB: what a block may have on an A100; two stages fit up to key_dim 192. A thread holds 128 sums of the output.
  // Compiled and checked statically, not yet measured on a device.
  static constexpr chunked_attention_policy tensor_cores() {
    chunked_attention_policy p = cuda(128, 64, 1);
    p.value_tile = 256, p.threads = 256;
    p.shared_memory_bytes = 163 * 1024;
    p.tensor_cores = p.clusters = true;
    return p;
  }
};

}  // namespace tcnca
