// What a step of training reads: blocks of several chunks, cut from the text at random.
#pragma once
#include <cstdint>
#include <vector>

#include "../models/model.hpp"

namespace language {

/// A well mixed function of its arguments (the finaliser of SplitMix64, over each in turn).
inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t a, std::uint64_t b) {
  auto const mixed = [](std::uint64_t x) {
    x += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  };
  return mixed(mixed(mixed(seed) ^ a) ^ b);
}

struct block_config {
  long sequences = 1;
  long chunk = 64, least = 1, most = 1;  ///< a block is so many chunks: how many is drawn for each step
  unsigned long seed = 1;
};

/// A step's blocks are a function of the seed and the step, so that training goes on from a checkpoint as if it had never stopped.
class blocks {
 public:
  /// `text` has more than config.most * config.chunk characters.
  blocks(std::uint8_t const* text, long size, block_config const& config) : text_(text), size_(size), config_(config) {
    tokens_.resize(std::size_t(config.sequences * config.most * config.chunk)), targets_.resize(tokens_.size());
  }
  /// Valid until the next call.
  tcnca::models::examples at(long step) {
    auto const draw = [&](long what, long below) {
      return long(random_bits(config_.seed, std::uint64_t(step), std::uint64_t(what)) % std::uint64_t(below));
    };
    long const length = config_.chunk * (config_.least + draw(0, config_.most - config_.least + 1));
    for (long s = 0; s < config_.sequences; s++) {
      std::uint8_t const* const from = text_ + draw(s + 1, size_ - length);
      for (long t = 0; t < length; t++) {
        auto const at = std::size_t(s * length + t);
        tokens_[at] = from[t], targets_[at] = from[t + 1];
      }
    }
    return {config_.sequences, length, tokens_.data(), targets_.data(), nullptr};
  }

 private:
  std::uint8_t const* text_;
  long size_;
  block_config config_;
  std::vector<int> tokens_, targets_;
};

}  // namespace language
