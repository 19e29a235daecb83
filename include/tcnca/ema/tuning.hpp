// Tuning of the exponential moving average.
#pragma once
#include "../arch/host.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The tuning used unless another is named: any type with these two functions will do.
template <element T, ema_shape Shape>
struct default_ema_tuning {
  static constexpr ema_policy forward(target t) {
    return t.compute_capability == 0 ? cpu(2) : cuda(3 * Shape.states + 4 * run);
  }
  static constexpr ema_policy backward(target t) {
    return t.compute_capability == 0 ? cpu(1) : cuda(7 * Shape.states + 4 * run);
  }

 private:
  // EPYC of family 26 (AVX-512), one thread, fp32, 16 states, 2 x 64 x 16384, skip = false: forward 0.36 ns an element (62 % of the
  // multiply-add rate of the same run; within the L2 cache 82 %), backward 0.81 ns (69 %). A run of 4: 0.44 ns; of 16: 0.42 and 1.06 ns.
  // Forward with one state at a time: 0.37 ns. Backward with two: 1.07 ns, for want of registers. November 2026.
  static constexpr ema_policy cpu(int together) {
    constexpr bool vectorizable = detail::register_bytes == 64;
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .packs = 1,
            .outputs_per_thread = vectorizable ? 8 : 4,
            .runs = vectorizable ? 16 : 32,
            .together = together,
            .threads = 1};
  }

  // Compiled and checked for spills and local memory only; not yet measured on a device. An odd run keeps shared memory free of bank
  // conflicts; as many threads, up to 128, as 96 KB hold, which every device from sm_80 on gives a block: so many elements each.
  static constexpr int run = 15;
  static constexpr ema_policy cuda(int elements) {
    int threads = 128;
    while (threads > 32 && threads * elements * int(sizeof(accumulate_t<T>)) > 96 * 1024) threads /= 2;
    return {.width = 1, .packs = 16, .outputs_per_thread = run, .runs = 1, .together = 2, .threads = threads};
  }
};

}  // namespace tcnca
