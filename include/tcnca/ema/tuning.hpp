// Tuning of the exponential moving average.
#pragma once
#include "../arch/host.hpp"
#include "../core/numeric.hpp"
#include "../core/target.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How an EMA is laid out on packs and threads. A group processes some channels of one sequence, tile by tile. A tile
/// has `rounds` rounds; in a round each thread processes outputs_per_thread neighbouring positions.
struct ema_policy {
  int width;               ///< channels in a pack: lanes of a register on the CPU; 1 where threads share a sequence
  int packs;               ///< channels of an item in the channels-last layout, in packs; 1 in the other layout
  int outputs_per_thread;  ///< neighbouring positions that a thread keeps in registers
  int rounds;              ///< of a tile; 1 where threads share a sequence
  int states_per_pass;     ///< states that a thread computes side by side, to hide the latency of each recurrence
  int threads;             ///< of a group

  friend constexpr bool operator==(ema_policy const&, ema_policy const&) = default;
};

/// The default tuning. A tuning is any type with these two functions.
template <element T, ema_shape Shape>
struct default_ema_tuning {
  static constexpr ema_policy forward(target t) { return t.is_cpu() ? cpu(2) : cuda(3 * Shape.states + 4 * outputs); }
  static constexpr ema_policy backward(target t) { return t.is_cpu() ? cpu(1) : cuda(7 * Shape.states + 4 * outputs); }

 private:
  // Measured in November 2026 on an EPYC of family 26 (AVX-512), one thread, fp32, 16 states, 2 x 64 x 16384, no skip.
  // Nanoseconds per element; in brackets, percent of the multiply-add rate (forward within the L2 cache: 82 %).
  //   outputs_per_thread   4              8            16
  //   forward              0.44           0.36 (62)    0.42
  //   backward             not measured   0.81 (69)    1.06
  // Forward with one state per pass: 0.37. Backward with two: 1.07, because registers spill.
  static constexpr ema_policy cpu(int states_per_pass) {
    constexpr bool avx512 = detail::register_bytes == 64;
    return {.width = detail::register_bytes / int(sizeof(accumulate_t<T>)),
            .packs = 1,
            .outputs_per_thread = avx512 ? 8 : 4,
            .rounds = avx512 ? 16 : 32,
            .states_per_pass = states_per_pass,
            .threads = 1};
  }

  // Not yet measured on a device; compiled without spills or local memory. An odd number of outputs avoids bank
  // conflicts in shared memory. The group has as many threads, up to 128, as fit in 96 KB of shared memory, which every
  // device from sm_80 on has per block: `elements` is the number of elements per thread.
  static constexpr int outputs = 15;
  static constexpr ema_policy cuda(int elements) {
    int threads = 128;
    while (threads > 32 && threads * elements * int(sizeof(accumulate_t<T>)) > 96 * 1024) threads /= 2;
    return {
        .width = 1, .packs = 16, .outputs_per_thread = outputs, .rounds = 1, .states_per_pass = 2, .threads = threads};
  }
};

}  // namespace tcnca
