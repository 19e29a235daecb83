// Tuning of the convolution stack.
#pragma once
#include "../arch/host.hpp"
#include "../core/target.hpp"
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The tuning used unless another is named: any type with these two functions will do.
template <element T, conv_stack_shape Shape>
struct default_conv_stack_tuning {
  static constexpr conv_stack_policy forward(target t) { return t.compute_capability == 0 ? cpu(32768) : cuda(); }
  static constexpr conv_stack_policy backward(target t) {
    if (t.compute_capability != 0) return cuda();
    return cpu(channels_last ? 512 : 4096);
  }

 private:
  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;

  // Zen 5, one thread of a busy machine, 128 sequences, fp32, CPU time in ms at 16k | 64k (2026-11-24), K 4 f 4 D 6 and K 17 f 16 D 4:
  //   tile (and longest tile backward)   1024           2048           4096          8192
  //   forward, K 4                       0.93 | 4.90    0.88 | 4.37    0.83 | 3.90   0.87 | 4.07
  //   forward, K 17                      1.40 | 7.55    1.39 | 7.40    1.38 | 7.02   1.32 | 6.87
  //   backward, K 4                      3.52 | 13.96   3.36 | 13.43   2.96 | 11.77  2.78 | 11.92
  //   backward, K 17                     5.00 | 22.10   4.76 | 21.82   4.35 | 19.98  4.31 | 20.22
  //   whole at 16k, tile 4096: forward 0.86 (K 4), 1.35 (K 17), backward 2.64, 4.21.
  //   y and grad_x past the caches, tile 1024, 64k: K 4 forward 5.28 -> 4.90, backward 14.17 -> 13.96; K 17 8.09 -> 7.55, 22.55 -> 22.10.
  static constexpr conv_stack_policy cpu(int longest) {
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .packs = 1,
            .outputs_per_thread = 8,
            .tile = channels_last ? 512 : 4096,
            .tile_max = longest,
            .single_tile_limit = channels_last ? 1024 : 16384,
            .threads = 1,
            .shared_memory_bytes = ~size_t(0),
            .streaming_bytes = size_t(16) << 20,
            .segment_fields = 2};
  }

  // Compiled and checked for spills and local memory only; not yet measured on a device. A run of 5 keeps shared memory free of bank
  // conflicts where the dilation is a power of two. 96 KB is what every device from sm_80 on gives a block.
  static constexpr conv_stack_policy cuda() {
    return {.width = channels_last ? 16 / int(sizeof(accumulate_t<T>)) : 1,
            .packs = 2,
            .outputs_per_thread = channels_last ? 3 : 5,
            .tile = channels_last ? 192 : 1280,
            .tile_max = channels_last ? 192 : 1280,
            .single_tile_limit = channels_last ? 8 * 192 : 8 * 1280,
            .threads = 256,
            .shared_memory_bytes = 96 * 1024,
            .streaming_bytes = 0,
            .segment_fields = 4};
  }
};

}  // namespace tcnca
