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
  template <class F>
  constexpr void fields(F f) const {
    f("width", width), f("packs", packs), f("outputs_per_thread", outputs_per_thread), f("rounds", rounds);
    f("states_per_pass", states_per_pass), f("threads", threads);
  }
};

/// The default tuning. A tuning is any type with these two functions.
template <element T, ema_shape Shape>
struct default_ema_tuning {
  static constexpr ema_policy forward(target t) {
    // Two directions would need more registers than sm_80 has for 32 outputs.
    constexpr bool long_segments =
        sizeof(accumulate_t<T>) == 4 && Shape.order == layout::batch_channels_length && Shape.dir == direction::causal;
    return t.is_cpu() ? cpu(2) : long_segments ? cuda(3, 32, 64) : cuda(3, 16, 128);
  }
  static constexpr ema_policy backward(target t) { return t.is_cpu() ? cpu(1) : cuda(7, 16, 128); }

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

  // Not yet measured on a device; counted in bench/counted, compiled without spills or local memory. The group has as
  // many threads as fit in 96 KB of shared memory, which every device from sm_80 on has per block. A thread needs
  // `tables` numbers for each state.
  static constexpr ema_policy cuda(int tables, int outputs, int threads) {
    int const elements = tables * Shape.states + 4 * outputs;
    while (threads > 32 && threads * elements * int(sizeof(accumulate_t<T>)) > 96 * 1024) threads /= 2;
    return {
        .width = 1, .packs = 16, .outputs_per_thread = outputs, .rounds = 1, .states_per_pass = 4, .threads = threads};
  }
};

}  // namespace tcnca
