// Batches of examples.
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "../../models/model.hpp"
#include "dataset.hpp"
#include "random.hpp"

namespace lra {

/// Sequences padded at the end with zeros to the length of the longest.
struct batch {
  std::vector<int> tokens, targets;
  std::vector<std::int64_t> lengths;
  long length = 0;

  /// Valid until the next `gather`. Lengths are given only if they differ.
  tcnca::models::examples view() const {
    bool const padded = std::any_of(lengths.begin(), lengths.end(), [&](std::int64_t l) { return l != length; });
    return {.sequences = long(lengths.size()),
            .length = length,
            .tokens = tokens.data(),
            .targets = targets.data(),
            .lengths = padded ? lengths.data() : nullptr};
  }
};

inline void gather(dataset const& from, std::span<long const> which, batch& b) {
  b.targets.clear(), b.lengths.clear(), b.length = 0;
  for (long const example : which) {
    b.targets.push_back(from.targets[std::size_t(example)]);
    for (long s = 0; s < from.sequences_an_example; s++) {
      b.lengths.push_back(from.length(example * from.sequences_an_example + s));
      b.length = std::max(b.length, long(b.lengths.back()));
    }
  }
  b.tokens.assign(b.lengths.size() * std::size_t(b.length), 0);
  std::size_t row = 0;
  for (long const example : which)
    for (long s = 0; s < from.sequences_an_example; s++, row++) {
      auto const sequence = from.sequence(example * from.sequences_an_example + s);
      std::copy(sequence.begin(), sequence.end(), b.tokens.begin() + std::ptrdiff_t(row * std::size_t(b.length)));
    }
}

/// The batches of training: each pass visits all examples in a new random order. To reduce padding, the examples of a
/// few hundred batches are sorted by length before they are split; then the batches are shuffled. Step n depends on n
/// and the seed only.
class batches {
 public:
  batches(dataset const& from, long size, std::uint64_t seed)
      : from_(&from),
        size_(size),
        seed_(seed),
        order_(std::size_t(from.examples())),
        starts_(std::size_t((from.examples() + size - 1) / size)) {}

  /// Steps count from 1. Valid until the next call.
  std::span<long const> at(long step) {
    long const a_pass = long(starts_.size()), pass = (step - 1) / a_pass;
    if (pass != pass_) draw(pass);
    long const start = starts_[std::size_t((step - 1) % a_pass)];
    return {order_.data() + start, std::size_t(std::min(size_, long(order_.size()) - start))};
  }

 private:
  void draw(long pass) {
    random_source random(mix(seed_, std::uint64_t(pass)));
    std::iota(order_.begin(), order_.end(), 0L);
    random.shuffle(order_);
    long const pool = 100 * size_;
    for (long first = 0; first < long(order_.size()); first += pool)
      std::stable_sort(order_.begin() + first, order_.begin() + std::min(first + pool, long(order_.size())),
                       [&](long a, long b) { return from_->longest(a) < from_->longest(b); });
    for (std::size_t i = 0; i < starts_.size(); i++) starts_[i] = long(i) * size_;
    random.shuffle(starts_);
    pass_ = pass;
  }
  dataset const* from_;
  long size_;
  std::uint64_t seed_;
  long pass_ = -1;
  std::vector<long> order_, starts_;
};

}  // namespace lra
