// The stacks of conv_extents in both layouts. They are compiled in stacks_first.cpp and stacks_last.cpp.
#pragma once
#include <array>
#include <cmath>
#include <utility>

#include "../../support/sequences.hpp"

namespace tcnca::bench {

inline constexpr layout first = layout::batch_channels_length, last = layout::batch_length_channels;
inline constexpr char const* layout_name(layout order) { return order == first ? "channels-first" : "channels-last"; }

/// Positions of the many short sequences.
inline constexpr index_t short_length = 64;

inline constexpr int stack_count = 3;
/// K 4 f 4 D 6, K 8 f 8 D 5 and K 17 f 16 D 4.
template <layout Order>
inline constexpr std::array<conv_stack_shape, stack_count> stacks{
    conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4, .order = Order},
    conv_stack_shape{.taps = 8, .depth = 5, .dilation_base = 8, .order = Order},
    conv_stack_shape{.taps = 17, .depth = 4, .dilation_base = 16, .order = Order},
};

/// The levels of a stack in which a sequence of short_length has more than the newest tap.
constexpr conv_stack_shape live_levels(conv_stack_shape s) {
  while (s.dilation(s.depth - 1) >= short_length) s.depth--;
  return s;
}

/// How a stack is called.
enum class use { whole, live, decode };

/// Binds stack `which`, its live levels, or forward with the state in place; weights [layers, taps, channels].
template <layout Order>
contender bind_cpu(use how, int which, pass direction, sequences<float> const& s, float const* weight);

}  // namespace tcnca::bench
