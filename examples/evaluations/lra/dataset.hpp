// Sequences of bytes with a class for each, or for each pair of neighbours.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lra {

struct dataset {
  std::vector<std::uint8_t> tokens;  ///< of all sequences, one after another
  std::vector<std::size_t> ends{0};  ///< sequence i is [ends[i], ends[i + 1])
  std::vector<int> targets;          ///< one an example
  int sequences_an_example = 1;      ///< 2 where pairs are classified

  long examples() const { return long(targets.size()); }
  long sequences() const { return long(ends.size()) - 1; }
  long length(long sequence) const { return long(ends[std::size_t(sequence) + 1] - ends[std::size_t(sequence)]); }
  std::span<std::uint8_t const> sequence(long i) const {
    return {tokens.data() + ends[std::size_t(i)], std::size_t(length(i))};
  }

  void add(std::span<std::uint8_t const> sequence) {
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    ends.push_back(tokens.size());
  }
  void add(std::span<std::uint8_t const> sequence, int target) { add(sequence), targets.push_back(target); }
  /// Example i of another, which has as many sequences an example.
  void add(dataset const& from, long i) {
    for (long s = i * sequences_an_example; s < (i + 1) * sequences_an_example; s++) add(from.sequence(s));
    targets.push_back(from.targets[std::size_t(i)]);
  }

  /// Of an example's sequences.
  long longest(long example) const {
    long most = 0;
    for (long i = example * sequences_an_example; i < (example + 1) * sequences_an_example; i++)
      most = std::max(most, length(i));
    return most;
  }
};

/// The share of the examples in which one is right who always names the most frequent class; NaN where there are none.
inline double majority(dataset const& d, long classes) {
  std::vector<long> count(std::size_t(std::max(classes, 1L)));
  for (int const t : d.targets) count[std::size_t(t)]++;
  return double(*std::max_element(count.begin(), count.end())) / double(d.examples());
}

/// And of one who looks at the first token alone, and knows from other examples which class it goes with most often.
inline double by_first_token(dataset const& known, dataset const& d, long classes) {
  std::vector<std::vector<long>> count(256, std::vector<long>(std::size_t(classes)));
  for (long i = 0; i < known.examples(); i++)
    count[known.sequence(i * known.sequences_an_example)[0]][std::size_t(known.targets[std::size_t(i)])]++;
  long right = 0;
  for (long i = 0; i < d.examples(); i++) {
    auto const& of = count[d.sequence(i * d.sequences_an_example)[0]];
    right += std::max_element(of.begin(), of.end()) - of.begin() == d.targets[std::size_t(i)];
  }
  return double(right) / double(d.examples());
}

/// What a task learns from, chooses by, and is judged by.
struct splits {
  dataset training, validation, test;
};

/// How many examples of each; of what is read from files, the first ones.
struct counts {
  long training = 0, validation = 0, test = 0;
};

}  // namespace lra
