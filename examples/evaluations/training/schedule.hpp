// The learning rate of each step: linear warm-up, then decay.
#pragma once
#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

namespace tcnca::training {

/// Steps count from 1. The rate is highest at step warmup + 1.
struct schedule {
  std::string kind =
      "linear";  ///< linear, cosine (near 0 at the last step), inverse-sqrt or constant (independent of `steps`)
  double rate = 1e-2;
  long warmup = 100, steps = 1000;

  bool depends_on_steps() const { return kind == "linear" || kind == "cosine"; }

  double at(long step) const {
    if (step <= warmup) return rate * double(step) / double(warmup + 1);
    double const part = double(step - warmup - 1) / double(std::max(1L, steps - warmup));
    if (kind == "linear") return rate * std::max(0.0, 1 - part);
    if (kind == "cosine") return rate * (1 + std::cos(std::numbers::pi * std::min(1.0, part))) / 2;
    if (kind == "inverse-sqrt") return rate * std::sqrt(double(warmup + 1) / double(step));
    return rate;
  }
};

}  // namespace tcnca::training
