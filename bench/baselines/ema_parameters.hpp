// The parameters of MEGA's damped EMA, and the coefficients of a channel's kernel.
#pragma once
#include <array>
#include <cmath>
#include <vector>

#include <tcnca/core/config.hpp>

namespace tcnca::bench {

/// Parameters of the EMA, each [channels, states].
struct ema_parameters {
  index_t channels = 0;
  int states = 0;
  std::vector<float> delta, alpha, beta, gamma;

  ema_parameters() = default;
  ema_parameters(index_t c, int n)
      : channels(c), states(n), delta(count()), alpha(count()), beta(count()), gamma(count()) {}
  size_t count() const { return static_cast<size_t>(channels) * static_cast<size_t>(states); }
};

/// Coefficients of a channel: kappa[l] = sum_n scale[n] decay[n]^l.
struct ema_channel {
  static constexpr int max_states = 64;
  int states = 0;
  std::array<double, max_states> p{}, a{}, decay{}, scale{};

  ema_channel(ema_parameters const& from, index_t channel) : states(from.states) {
    auto const sigmoid = [](double v) { return 1 / (1 + std::exp(-v)); };
    double const s = std::sqrt(1.0 / states);
    for (size_t n = 0; n < static_cast<size_t>(states); n++) {
      size_t const i = static_cast<size_t>(channel) * static_cast<size_t>(states) + n;
      p[n] = sigmoid(double{from.delta[i]});
      a[n] = sigmoid(double{from.alpha[i]});
      decay[n] = 1 - p[n] * a[n];
      scale[n] = double{from.gamma[i]} * s * p[n] * double{from.beta[i]};
    }
  }
};

}  // namespace tcnca::bench
