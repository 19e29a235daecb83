// The associative recall task: sequences of keys and values, with queries for the value of a key. An example is a
// function of a seed and its number.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "../training/random.hpp"

namespace recall {

using tcnca::training::below;
using tcnca::training::mix;

/// single: one query at the end; all targets count in training. multi_query: several queries anywhere; only their
/// targets count.
enum class form { single, multi_query };

struct problem {
  form kind = form::single;
  int vocabulary = 20;
  long length = 40;  ///< tokens before the query (single), or of the whole sequence
  long pairs = 10;   ///< multi-query only: number of pairs, each queried once

  /// Tokens of an input sequence.
  long positions() const { return kind == form::single ? length + 2 : length; }
  int keys() const { return kind == form::single ? (vocabulary - 2) / 2 : vocabulary / 2; }
};

/// The form of the Hyena and H3 papers. The last two tokens of the vocabulary are "=>" and "."; the first half of the
/// others are keys, the second half values. Each example assigns a random value to each key (values may repeat),
/// appends length / 2 random pairs of a key and its value, then "=>", one of the keys present, and its value ("."
/// terminates the sequence and is not generated). Inputs are all tokens but the last, targets all but the first.
inline void make_single(problem const& p, std::mt19937_64& random, int* tokens, int* targets) {
  int const keys = p.keys(), values = p.vocabulary - 2 - keys, arrow = p.vocabulary - 2;
  std::vector<int> value(static_cast<std::size_t>(keys)), present;
  for (int& v : value) v = keys + int(below(random, std::uint64_t(values)));
  std::vector<bool> seen(value.size());
  for (long i = 0; i < p.length; i += 2) {
    auto const key = std::size_t(below(random, std::uint64_t(keys)));
    if (!seen[key]) present.push_back(int(key)), seen[key] = true;
    tokens[i] = int(key), tokens[i + 1] = value[key];
  }
  int const asked = present[std::size_t(below(random, present.size()))];
  tokens[p.length] = arrow, tokens[p.length + 1] = asked;
  std::copy(tokens + 1, tokens + p.positions(), targets);
  targets[p.length + 1] = value[std::size_t(asked)];
}

/// The form of Zoology (multi-query associative recall). The first half of the vocabulary are keys, the second half
/// values. The pairs come first: distinct keys, distinct values. Each key is queried once, at an even distance 2 g
/// after the pairs, where the g are sampled without replacement with probabilities proportional to (g + 1)^(a - 1), a =
/// 0.01: most early, some late. The gaps hold random tokens other than the keys. The target of a query is its value;
/// nothing else counts.
inline void make_multi_query(problem const& p, std::mt19937_64& random, int* tokens, int* targets) {
  constexpr double a = 0.01;
  auto const pairs = std::size_t(p.pairs), places = std::size_t(p.length / 2 - p.pairs);
  auto const distinct = [&](int first, int count) {  // partial shuffle
    std::vector<int> all(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < all.size(); i++) all[i] = first + int(i);
    for (std::size_t i = 0; i < pairs; i++) std::swap(all[i], all[i + std::size_t(below(random, all.size() - i))]);
    all.resize(pairs);
    return all;
  };
  auto const key = distinct(0, p.keys()), value = distinct(p.keys(), p.vocabulary - p.keys());
  // Sampling without replacement with given probabilities: the smallest of exponential waiting times with these rates.
  std::vector<std::pair<double, long>> arrival(places);
  for (std::size_t g = 0; g < places; g++)
    arrival[g] = {-std::log(tcnca::training::uniform(random)) / std::pow(double(g + 1), a - 1), long(g)};
  std::partial_sort(arrival.begin(), arrival.begin() + p.pairs, arrival.end());

  std::vector<bool> given(static_cast<std::size_t>(p.vocabulary));
  for (int const k : key) given[std::size_t(k)] = true;
  for (long t = 2 * p.pairs; t < p.length; t++) do
      tokens[t] = int(below(random, std::uint64_t(p.vocabulary)));
    while (given[std::size_t(tokens[t])]);
  std::fill_n(targets, p.length, -1);
  for (std::size_t i = 0; i < pairs; i++) {
    tokens[2 * i] = key[i], tokens[2 * i + 1] = value[i];
    long const t = 2 * p.pairs + 2 * arrival[i].second;
    tokens[t] = key[i], targets[t] = value[i];
  }
}

/// Writes example `number` of a seed: `positions()` tokens and their targets (negative: ignored).
inline void make_example(problem const& p, std::uint64_t seed, std::uint64_t number, int* tokens, int* targets) {
  std::mt19937_64 random(mix(seed, number));
  (p.kind == form::single ? make_single : make_multi_query)(p, random, tokens, targets);
}

}  // namespace recall
