// Tuning of the convolution stack.
#pragma once
#include "../agent/conv_stack_plan.hpp"
#include "../launch/cpu.hpp"

namespace tcnca {

namespace detail {
/// Bytes of the widest vector register that the translation unit may use.
inline constexpr int register_bytes =
#if defined(__AVX512F__)
    64;
#elif defined(__AVX__)
    32;
#else
    16;
#endif
}  // namespace detail

/// The tuning used unless another is named: any type with these two functions will do.
template <element T, conv_stack_shape Shape>
struct default_conv_stack_tuning {
  static constexpr conv_stack_policy forward(machine m) {
    if (m.compute_capability == 0)
      return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
              .packs = 1,
              .run = 8,
              .tile = 512,
              .tile_max = 32768,
              .threads = 1,
              .near_bytes = ~size(0),
              .segment_fields = 2};
    return cuda(Shape.order == layout::batch_length_channels);
  }
  static constexpr conv_stack_policy backward(machine m) { return forward(m); }

 private:
  // Compiled and checked for spills and local memory only; not yet measured on a device. A run of 5 keeps shared memory free of bank
  // conflicts where the dilation is a power of two. 96 KB is what every device from sm_80 on gives a block.
  static constexpr conv_stack_policy cuda(bool channels_last) {
    return {.width = channels_last ? 16 / int(sizeof(accumulate_t<T>)) : 1,
            .packs = 2,
            .run = channels_last ? 3 : 5,
            .tile = channels_last ? 192 : 1280,
            .tile_max = channels_last ? 192 : 1280,
            .threads = 256,
            .near_bytes = 96 * 1024,
            .segment_fields = 4};
  }
};

}  // namespace tcnca
