// Tuning of chunked attention.
#pragma once
#include "../arch/host.hpp"
#include "../core/numeric.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The tuning used unless another is named: any type with these two functions will do.
template <element T, chunked_attention_shape Shape>
struct default_chunked_attention_tuning {
  static constexpr chunked_attention_policy forward(target t) {
    return t.compute_capability == 0                      ? cpu(192, 192)
           : t.compute_capability >= 80 && sizeof(T) == 2 ? tensor_cores()
                                                          : cuda(64, 32);
  }
  static constexpr chunked_attention_policy backward(target t) {
    return t.compute_capability == 0                      ? cpu(96, 192)
           : t.compute_capability >= 80 && sizeof(T) == 2 ? tensor_cores()
                                                          : cuda(32, 32);
  }

 private:
  // Zen 5, one thread, fp32, key_dim 128, value_dim 1024, chunk 2048 | 128, 2026-11-24, % of 288 GFLOP/s:
  //   forward, tile 12 x 2, queries x keys, panel: 192 x 192, 256 86.5 | 74.3; 96 x 192, 256 83.0 | 71.0; 192 x 384, 256 86.6 | 74.7; 192 x 192, 128 85.2 | 71.0;
  //   tile 8 x 3, 192 x 192, 192 85.5 | 72.1; tile 6 x 4, 192 x 192, 256 84.8 | 76.0 (then 86.7 | 76.3 for the first);
  //   backward, tile 12 x 2: 96 x 192 88.4 | 73.7; 48 x 96 79.9 | 69.1; 96 x 96 81.8 | 69.3; 192 x 96 83.0 | 72.6; 96 x 288 88.2 | 73.2; 6 x 4, 96 x 192 87.3 | 74.4.
  static constexpr chunked_attention_policy cpu(int queries, int keys) {
    constexpr int width = detail::register_bytes / int(sizeof(accumulate_t<T>));
    constexpr bool many_registers = detail::register_bytes == 64;
    return {.width = width,
            .tile_rows = many_registers ? 12 : 6,
            .tile_packs = 2,
            .queries = queries,
            .keys = keys,
            .panel = 16 * width,
            .value_tile = chunked_attention_limits::value_dim,
            .splits = 16,
            .threads = 1,
            .shared_memory_bytes = ~size_t(0)};
  }
  // Compiled and checked for spills and local memory only; not yet measured on a device.
  static constexpr chunked_attention_policy cuda(int queries, int keys) {
    return {.width = 16 / int(sizeof(accumulate_t<T>)),
            .tile_rows = 4,
            .tile_packs = 1,
            .queries = queries,
            .keys = keys,
            .panel = 64,
            .value_tile = 128,
            .splits = 264,
            .threads = 256,
            .shared_memory_bytes = 96 * 1024};
  }
  // Shared memory of an A100's block; both stages fit up to key_dim 192. A thread has 128 sums of the output.
  // Compiled and checked statically, not yet measured on a device.
  static constexpr chunked_attention_policy tensor_cores() {
    chunked_attention_policy p = cuda(128, 64);
    p.value_tile = 256;
    p.shared_memory_bytes = 163 * 1024;
    p.tensor_cores = true;
    return p;
  }
};

/// A tuning as another, but with the value dimension shared out to clusters of sm_90a: for value_dim a little below multiples of 256 `Groups`. Other devices
/// take the agents of the default. Not the default, as it is checked statically and on fibers, but not yet run on a device.
template <class Default, int Groups = 4>
struct clustered_chunked_attention_tuning : Default {
  static constexpr chunked_attention_policy forward(target t) {
    chunked_attention_policy p = Default::forward(t);
    p.cluster = p.tensor_cores ? Groups : 0;
    return p;
  }
};

}  // namespace tcnca
