// Initial parameters of the EMA and weights of the stacks, the same numbers on every machine.
#pragma once
#include <cmath>

#include "../../support/text.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

/// 16 states per channel, initialized as in MEGA.
inline ema_parameters initial_ema(index_t channels) {
  ema_parameters p(channels, 16);
  for (size_t i = 0; i < p.count(); i++) {
    p.delta[i] = 0.2f * gaussian(11, i), p.alpha[i] = 0.2f * gaussian(12, i), p.gamma[i] = gaussian(14, i);
    p.beta[i] = 0.02f * gaussian(13, i) + (i % 2 == 0 ? 1.f : -1.f);
  }
  return p;
}

inline size_t weight_count(size_t stack, problem const& p) {
  return static_cast<size_t>(compared_stacks[stack].layers() * compared_stacks[stack].taps * p.channels);
}

/// Gaussian with variance 1 / taps; [layers, taps, channels].
template <class T>
void initial_weight(size_t stack, problem const& p, T* weight) {
  float const scale = 1 / std::sqrt(static_cast<float>(compared_stacks[stack].taps));
  text::noise(contiguous(weight, 1, 1, static_cast<index_t>(weight_count(stack, p))), 20 + stack, scale);
}

}  // namespace tcnca::bench
