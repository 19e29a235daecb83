// Stateless random numbers: functions of a seed and an index, so that a checkpoint stores no generator state. The same
// on every machine and with every standard library.
#pragma once
#include <cstdint>
#include <numeric>
#include <random>
#include <utility>
#include <vector>

namespace tcnca::training {

/// Derives the `i`-th seed from a seed.
inline std::uint64_t mix(std::uint64_t seed, std::uint64_t i) {
  std::uint64_t z = seed + 0x9E3779B97F4A7C15u * (i + 1);
  for (int round = 0; round < 2; round++) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    z ^= z >> 31;
  }
  return z;
}

/// Uniform in [0, n), for n far below 2^64.
inline std::uint64_t below(std::mt19937_64& random, std::uint64_t n) { return random() % n; }

/// Uniform in (0, 1).
inline double uniform(std::mt19937_64& random) { return (double(random() >> 11) + 0.5) * 0x1p-53; }

/// Examples 0 to count - 1, repeatedly, in a new random order for each pass.
class passes {
 public:
  passes(std::size_t count, std::uint64_t seed) : seed_(seed), order_(count) {}

  /// The `i`-th example (from 0), counted over all passes.
  std::size_t operator()(std::uint64_t i) {
    if (std::uint64_t const pass = i / order_.size(); pass != pass_) shuffle(pass);
    return order_[std::size_t(i % order_.size())];
  }

 private:
  void shuffle(std::uint64_t pass) {
    std::mt19937_64 random(mix(seed_, pass));
    std::iota(order_.begin(), order_.end(), std::size_t(0));
    for (std::size_t i = order_.size(); i > 1; i--) std::swap(order_[i - 1], order_[std::size_t(below(random, i))]);
    pass_ = pass;
  }
  std::uint64_t seed_, pass_ = ~std::uint64_t(0);
  std::vector<std::size_t> order_;
};

}  // namespace tcnca::training
