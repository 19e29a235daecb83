// What an exponential moving average is, and how it is laid out on the threads of a group.
#pragma once
#include "../block/pack.hpp"
#include "../core/options.hpp"
#include "../core/tensor.hpp"

namespace tcnca {

/// MEGA's damped exponential moving average, everything known at compile time. For each channel and each of its states:
///   h[t] = p beta x[t] + q h[t-1],   y[t] = sum over the states of gamma h[t] / sqrt(states),
/// with p = sigmoid(delta), a = sigmoid(alpha), q = 1 - p a. Bidirectional: a second set of parameters, whose states run against time, and
/// both outputs summed. With `skip` the output is silu(y + omega x), else y.
struct ema_shape {
  int states = 16;
  direction dir = direction::causal;
  bool skip = true;
  layout order = layout::batch_channels_length;

  /// Sets of parameters: two where a causal and an anti-causal EMA are summed.
  TCNCA_HOST_DEVICE constexpr int directions() const { return dir == direction::bidirectional ? 2 : 1; }
};

/// Tuning of an EMA: plain values, compared field by field.
struct ema_policy {
  int width;               ///< channels in a pack: the lanes of a register on the CPU, 1 where threads share a sequence
  int packs;               ///< packs side by side in an item, where neighbouring channels are neighbours in memory
  int outputs_per_thread;  ///< neighbouring positions that a thread keeps in registers
  int runs;                ///< of a tile, one after another; 1 where threads share a sequence
  int together;            ///< states side by side
  int threads;             ///< of a group

  friend constexpr bool operator==(ema_policy const&, ema_policy const&) = default;
};

}  // namespace tcnca

namespace tcnca::inline TCNCA_TARGET {

/// Compile-time facts about an EMA under a policy, for a group of `Threads`.
template <int Threads, element T, ema_shape Shape, ema_policy Policy>
struct ema_tiling {
  static_assert(Threads == 1 || (Policy.width == 1 && Policy.runs == 1),
                "threads that share a sequence take one channel and one run each");
  using A = accumulate_t<T>;
  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;
  static constexpr int states = Shape.states;
  static constexpr int width = Policy.width;
  static constexpr int packs = channels_last && Policy.packs < Threads ? Policy.packs : 1;
  static constexpr int channels = width * packs;   ///< of an item
  static constexpr int workers = Threads / packs;  ///< threads that share a sequence
  static constexpr int run = Policy.outputs_per_thread, runs = Policy.runs;
  static constexpr int tile = (workers * run * Policy.runs + width - 1) / width * width;
  /// Elements in one vector access: 16 bytes on a GPU, a register on the CPU. Along the length, tiles must start at multiples of them.
  static constexpr int vector_elements = width > 1                         ? width
                                         : channels_last                   ? min_of(int(16 / sizeof(T)), channels)
                                         : tile % int(16 / sizeof(T)) == 0 ? int(16 / sizeof(T))
                                                                           : 1;
  static_assert(!channels_last || channels % vector_elements == 0, "packs must fill whole accesses");
  static constexpr int buffer = (tile + vector_elements - 1) / vector_elements * vector_elements * channels;
  /// Room to turn a tile in, where channels become lanes: rows that begin on different lines of a cache.
  static constexpr int stage_stride = tile + width;
  static constexpr int stage = width > 1 && !channels_last ? width * stage_stride : 0;
  /// Elements of a table of one number for each state and thread.
  static constexpr int slots(int rows) { return (rows * packs * workers * 17 / 16 + 16) / 16 * 16; }
};

}  // namespace tcnca
