// Tuning of the convolution stack.
#pragma once
#include "../agent/conv_stack_plan.hpp"
#include "../launch/cpu.hpp"
#include "registers.hpp"

namespace tcnca {

/// The tuning used unless another is named: any type with these two functions will do.
template <element T, conv_stack_shape Shape>
struct default_conv_stack_tuning {
  static constexpr conv_stack_policy forward(machine m) { return m.compute_capability == 0 ? cpu(32768) : cuda(); }
  static constexpr conv_stack_policy backward(machine m) {
    if (m.compute_capability != 0) return cuda();
    return cpu(channels_last ? 512 : 4096);
  }

 private:
  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;

  // Zen 5 (one core of a busy machine: read the ratios; fp32, 16 channels, 2026-11-24), cycles a vector multiply-add, at best 0.5, 16k | 131k:
  //   forward, K 4 f 4 D 6: run 8 tile 1024 1.64 | 1.66, tile 512 1.72 | 1.85, tile 256 1.89 | 1.91, run 4 1.88 | 2.10, run 12 2.02 | 1.90;
  //   forward, K 51 f 51 D 3: longest tile 32768 1.35, 2048 1.28;  K 8 f 8 D 5: 1.29, 1.72;
  //   backward at 16k, K 4 | K 8: tile 1024 longest 4096 2.14 | 1.40, 1024 2.17 | 1.50, 32768 2.24 | 1.57; tile 512 2.41 | 1.68.
  static constexpr conv_stack_policy cpu(int longest) {
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .packs = 1,
            .run = 8,
            .tile = channels_last ? 512 : 1024,
            .tile_max = longest,
            .whole = channels_last ? 1024 : 8192,
            .threads = 1,
            .near_bytes = ~size(0),
            .streaming_bytes = size(16) << 20,
            .segment_fields = 2};
  }

  // Compiled and checked for spills and local memory only; not yet measured on a device. A run of 5 keeps shared memory free of bank
  // conflicts where the dilation is a power of two. 96 KB is what every device from sm_80 on gives a block.
  static constexpr conv_stack_policy cuda() {
    return {.width = channels_last ? 16 / int(sizeof(accumulate_t<T>)) : 1,
            .packs = 2,
            .run = channels_last ? 3 : 5,
            .tile = channels_last ? 192 : 1280,
            .tile_max = channels_last ? 192 : 1280,
            .whole = channels_last ? 8 * 192 : 8 * 1280,
            .threads = 256,
            .near_bytes = 96 * 1024,
            .streaming_bytes = 0,
            .segment_fields = 4};
  }
};

}  // namespace tcnca
