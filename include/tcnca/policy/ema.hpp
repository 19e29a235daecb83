// Tuning of the exponential moving average.
#pragma once
#include "../agent/ema_shape.hpp"
#include "../launch/cpu.hpp"
#include "conv_stack.hpp"

namespace tcnca {

/// The tuning used unless another is named: any type with these two functions will do.
template <element T, ema_shape Shape>
struct default_ema_tuning {
  static constexpr ema_policy forward(machine m) { return m.compute_capability == 0 ? cpu() : cuda(3 * Shape.states + 4 * run); }
  static constexpr ema_policy backward(machine m) { return m.compute_capability == 0 ? cpu() : cuda(7 * Shape.states + 4 * run); }

 private:
  // A run: as many positions as the registers hold sums for. With AVX-512 16 states reach 88 % of the multiply-add rate in the recurrence.
  static constexpr ema_policy cpu() {
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .packs = 1,
            .run = detail::register_bytes == 64 ? 8 : 4,
            .runs = detail::register_bytes == 64 ? 16 : 32,
            .threads = 1};
  }

  // Compiled and checked for spills and local memory only; not yet measured on a device. An odd run keeps shared memory free of bank
  // conflicts; as many threads, up to 128, as 96 KB hold, which every device from sm_80 on gives a block: so many elements each.
  static constexpr int run = 15;
  static constexpr ema_policy cuda(int elements) {
    int threads = 128;
    while (threads > 32 && threads * elements * int(sizeof(accumulate_t<T>)) > 96 * 1024) threads /= 2;
    return {.width = 1, .packs = 16, .run = run, .runs = 1, .threads = threads};
  }
};

}  // namespace tcnca
