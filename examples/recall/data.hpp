// The task of associative recall: sequences of keys and values, and at the end a key whose value is asked for.
#pragma once
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace recall {

/// Sequences and what follows each of their tokens. The last target is the answer.
struct examples {
  long length = 0;
  std::vector<int> tokens, targets;

  long count() const { return length == 0 ? 0 : long(tokens.size()) / length; }
};

/// The last two tokens of the vocabulary are "=>" and ".", of the others the first half are keys, the second values. An example draws its own value for
/// each key (values may repeat), then `pairs` times a key and appends it and its value, then "=>", one of the keys present and its value ("." ends what
/// follows, and is not drawn). Tokens are all but the last, targets all but the first.
inline examples make_examples(int vocabulary, long pairs, long count, unsigned long seed) {
  int const keys = (vocabulary - 2) / 2, values = vocabulary - 2 - keys, arrow = vocabulary - 2;
  std::mt19937_64 random(seed);
  auto const below = [&](int n) { return int(random() % std::uint64_t(n)); };
  examples e{2 * pairs + 2, {}, {}};
  std::vector<int> value(static_cast<std::size_t>(keys)), sequence;
  for (long i = 0; i < count; i++) {
    for (int& v : value) v = keys + below(values);
    sequence.clear();
    std::vector<int> present;
    for (long p = 0; p < pairs; p++) {
      int const key = below(keys);
      if (std::find(present.begin(), present.end(), key) == present.end()) present.push_back(key);
      sequence.push_back(key), sequence.push_back(value[std::size_t(key)]);
    }
    int const asked = present[std::size_t(below(int(present.size())))];
    sequence.push_back(arrow), sequence.push_back(asked), sequence.push_back(value[std::size_t(asked)]);
    e.tokens.insert(e.tokens.end(), sequence.begin(), sequence.end() - 1);
    e.targets.insert(e.targets.end(), sequence.begin() + 1, sequence.end());
  }
  return e;
}

}  // namespace recall
