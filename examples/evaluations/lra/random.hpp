// Reproducible random numbers: the engine is the standard's, and no library distribution is used.
#pragma once
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>
#include <vector>

#include "../training/random.hpp"

namespace lra {

/// The `n`-th seed derived from `seed` is training::mix(seed, n).
using tcnca::training::mix;

class random_source {
 public:
  explicit random_source(std::uint64_t seed) : engine_(seed) {}

  /// Uniform in 0 to n - 1. (The bias of the remainder is n / 2^64.)
  long below(long n) { return long(engine_() % std::uint64_t(n)); }
  /// Uniform in [0, 1).
  double unit() { return double(engine_() >> 11) * 0x1p-53; }
  double between(double low, double high) { return low + (high - low) * unit(); }

  template <class T>
  void shuffle(std::vector<T>& v) {
    for (std::size_t i = v.size(); i > 1; i--) std::swap(v[i - 1], v[std::size_t(below(long(i)))]);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace lra
