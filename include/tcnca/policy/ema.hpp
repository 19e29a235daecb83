// Tuning of the exponential moving average.
#pragma once
#include "../agent/ema_shape.hpp"
#include "../launch/cpu.hpp"
#include "conv_stack.hpp"

namespace tcnca {

/// The tuning used unless another is named: any type with these two functions will do.
template <element T, ema_shape Shape>
struct default_ema_tuning {
  static constexpr ema_policy forward(machine m) { return m.compute_capability == 0 ? cpu() : cuda(128); }
  static constexpr ema_policy backward(machine m) { return m.compute_capability == 0 ? cpu() : cuda(256); }

 private:
  static constexpr ema_policy cpu() {
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)), .packs = 1, .run = 8, .runs = 16, .threads = 1};
  }
  // Compiled and checked for spills and local memory only; not yet measured on a device. An odd run keeps shared memory free of bank
  // conflicts.
  static constexpr ema_policy cuda(int threads) { return {.width = 1, .packs = 16, .run = 15, .runs = 1, .threads = threads}; }
};

}  // namespace tcnca
