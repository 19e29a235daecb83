// Training batches: blocks of several chunks, at random positions of the text.
#pragma once
#include <cstdint>
#include <vector>

#include "../../models/model.hpp"
#include "../training/random.hpp"

namespace language {

struct block_config {
  long sequences = 1;
  long chunk = 64, least = 1, most = 1;  ///< chunks per block: sampled from least to most for each step
  unsigned long seed = 1;
};

/// The blocks of a step are a function of seed and step, so that training continues from a checkpoint with the same
/// batches.
class blocks {
 public:
  /// `text` must have more than config.most * config.chunk characters.
  blocks(std::uint8_t const* text, long size, block_config const& config) : text_(text), size_(size), config_(config) {
    tokens_.resize(std::size_t(config.sequences * config.most * config.chunk)), targets_.resize(tokens_.size());
  }
  /// Valid until the next call.
  tcnca::models::examples at(long step) {
    std::mt19937_64 random(tcnca::training::mix(config_.seed, std::uint64_t(step)));
    auto const below = [&](long n) { return long(tcnca::training::below(random, std::uint64_t(n))); };
    long const length = config_.chunk * (config_.least + below(config_.most - config_.least + 1));
    for (long s = 0; s < config_.sequences; s++) {
      std::uint8_t const* const from = text_ + below(size_ - length);
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
