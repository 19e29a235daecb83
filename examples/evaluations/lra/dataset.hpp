// Byte sequences with a class each, or one per pair of neighbouring sequences.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace lra {

struct dataset {
  std::vector<std::uint8_t> tokens;  ///< of all sequences, concatenated
  std::vector<std::size_t> ends{0};  ///< sequence i is [ends[i], ends[i + 1])
  std::vector<int> targets;          ///< one per example
  int sequences_an_example = 1;      ///< 2 if pairs are classified

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
  /// Appends example i of another data set with as many sequences per example.
  void add(dataset const& from, long i) {
    for (long s = i * sequences_an_example; s < (i + 1) * sequences_an_example; s++) add(from.sequence(s));
    targets.push_back(from.targets[std::size_t(i)]);
  }

  /// Length of an example's longest sequence.
  long longest(long example) const {
    long most = 0;
    for (long i = example * sequences_an_example; i < (example + 1) * sequences_an_example; i++)
      most = std::max(most, length(i));
    return most;
  }
};

/// Accuracy of always predicting the most frequent class; NaN without examples.
inline double majority(dataset const& d, long classes) {
  std::vector<long> count(std::size_t(std::max(classes, 1L)));
  for (int const t : d.targets) count[std::size_t(t)]++;
  return double(*std::max_element(count.begin(), count.end())) / double(d.examples());
}

/// Accuracy of predicting from the first token alone, with the most frequent class for each token of other examples.
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

/// Training, validation and test part of a task.
struct splits {
  dataset training, validation, test;
};

/// Number of examples of each part; of data from files, the first ones.
struct counts {
  long training = 0, validation = 0, test = 0;
};

}  // namespace lra
