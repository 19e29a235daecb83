// The compile-time description of an exponential moving average.
#pragma once
#include "../core/config.hpp"
#include "../core/options.hpp"

namespace tcnca {

/// MEGA's damped exponential moving average (EMA). For each channel and each of its states n:
///   h[n, t] = p beta x[t] + q h[n, t-1],   y[t] = sum over n of gamma h[n, t] / sqrt(states),
/// with p = sigmoid(delta), a = sigmoid(alpha), q = 1 - p a for each channel and state.
struct ema_shape {
  int states = 16;  ///< per channel
  /// Causal, or bidirectional: a second EMA with parameters of its own runs from the end to the beginning, and both
  /// outputs are added.
  direction dir = direction::causal;
  bool skip = true;  ///< the output is silu(y + omega x); else y
  layout order = layout::batch_channels_length;

  TCNCA_HOST_DEVICE friend constexpr bool operator==(ema_shape const& a, ema_shape const& b) {
    return a.states == b.states && a.dir == b.dir && a.skip == b.skip && a.order == b.order;
  }
  template <class F>
  constexpr void fields(F f) const {
    f("states", states), f("dir", dir), f("skip", skip), f("order", order);
  }

  /// Number of EMAs, and so of sets of parameters.
  TCNCA_HOST_DEVICE constexpr int directions() const { return dir == direction::bidirectional ? 2 : 1; }
};

}  // namespace tcnca
