// ListOps: nested MIN, MAX, MED (median) and SM (sum modulo 10) of digits in prefix form; the class is the value.
#pragma once
#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <unordered_set>

#include "dataset.hpp"
#include "random.hpp"

namespace lra::listops {

/// Tokens: four operators, each including its opening bracket, the closing bracket, ten digits.
enum token : std::uint8_t { minimum, maximum, median, sum_modulo, close, digit };
constexpr long vocabulary = digit + 10, classes = 10;

constexpr std::array<char const*, digit> names{"[MIN", "[MAX", "[MED", "[SM", "]"};

/// Text form of a token.
inline std::string text(std::span<std::uint8_t const> tokens) {
  std::string out;
  for (std::uint8_t const t : tokens) {
    if (!out.empty()) out += ' ';
    out += t < digit ? std::string(names[t]) : std::to_string(t - digit);
  }
  return out;
}

/// The distribution of trees: at `depth` (the root is at 1) all nodes are digits, above it three of four; operators
/// have 2 to `arguments` arguments. Trees of `shortest` to `longest` tokens are kept.
struct shape {
  int depth = 10, arguments = 10;
  long shortest = 500, longest = 2000;
};
constexpr int most_arguments = 64;

/// The value of one operator. The median of an even number of arguments is the mean of the middle two, rounded down.
/// Reorders the arguments.
inline int result_of(std::uint8_t op, std::span<int> arguments) {
  if (op == minimum) return *std::min_element(arguments.begin(), arguments.end());
  if (op == maximum) return *std::max_element(arguments.begin(), arguments.end());
  if (op == median) {
    std::sort(arguments.begin(), arguments.end());
    std::size_t const n = arguments.size();
    return (arguments[(n - 1) / 2] + arguments[n / 2]) / 2;
  }
  int sum = 0;
  for (int const a : arguments) sum += a;
  return sum % 10;
}

/// Appends a random tree whose root is at `depth` and returns its value; negative, with the tree incomplete, if it
/// exceeds the shape's length.
inline int random_tree(random_source& random, shape const& s, int depth, std::vector<std::uint8_t>& tokens) {
  if (depth >= s.depth || random.below(4) != 0) {
    int const value = int(random.below(10));
    tokens.push_back(std::uint8_t(digit + value));
    return value;
  }
  auto const op = std::uint8_t(random.below(4));
  auto const count = std::size_t(2 + random.below(s.arguments - 1));
  std::array<int, most_arguments> arguments;
  tokens.push_back(op);
  for (std::size_t i = 0; i < count; i++)
    if ((arguments[i] = random_tree(random, s, depth + 1, tokens)) < 0) return -1;
  tokens.push_back(close);
  return long(tokens.size()) > s.longest ? -1 : result_of(op, {arguments.data(), count});
}

/// The value of an expression; empty if the tokens are not an expression.
inline std::optional<int> value(std::span<std::uint8_t const> tokens) {
  struct open {
    std::uint8_t op;
    std::vector<int> arguments;
  };
  std::vector<open> opened{{minimum, {}}};  // a root whose only argument is the result
  for (std::uint8_t const t : tokens) {
    if (opened.size() == 1 && !opened[0].arguments.empty()) return {};
    if (t >= vocabulary) return {};
    if (t >= digit) {
      opened.back().arguments.push_back(t - digit);
    } else if (t != close) {
      opened.push_back({t, {}});
    } else {
      if (opened.size() == 1 || opened.back().arguments.empty()) return {};
      int const v = result_of(opened.back().op, opened.back().arguments);
      opened.pop_back();
      opened.back().arguments.push_back(v);
    }
  }
  if (opened.size() != 1 || opened[0].arguments.empty()) return {};
  return opened[0].arguments[0];
}

/// Generates distinct trees; no tree occurs in two parts. The same seed gives the same trees. Reports to `progress`.
/// Throws std::invalid_argument if there are no such trees, or too few.
inline splits generate(shape const& s, counts const& n, std::uint64_t seed,
                       std::function<void(long)> const& progress = {}) {
  if (s.depth < 1 || s.depth > 100)
    throw std::invalid_argument("listops: the depth must be a number from 1 to 100, not " + std::to_string(s.depth));
  if (s.arguments < 2 || s.arguments > most_arguments)
    throw std::invalid_argument("listops: operators have 2 to " + std::to_string(most_arguments) + " arguments, not " +
                                std::to_string(s.arguments));
  if (s.shortest < 1 || s.longest < s.shortest)
    throw std::invalid_argument("listops: the shortest length must be 1 or more, and the longest no less");
  random_source random(seed);
  splits result;
  // Trees with equal hashes are treated as equal: a tree is dropped in one of 10^9 data sets, and duplicates never
  // occur.
  std::unordered_set<std::uint64_t> known;
  std::vector<std::uint8_t> tokens;
  constexpr long patience = 1'000'000;  // attempts without a new tree; with the default lengths 8 of 100 succeed
  for (auto const& [part, count] :
       {std::pair{&result.training, n.training}, {&result.validation, n.validation}, {&result.test, n.test}}) {
    for (long vain = 0; part->examples() < count;) {
      tokens.clear();
      int const v = random_tree(random, s, 1, tokens);
      long const length = long(tokens.size());
      std::uint64_t hash = 14695981039346656037u;
      for (std::uint8_t const t : tokens) hash = (hash ^ t) * 1099511628211u;
      if (v >= 0 && length >= s.shortest && length <= s.longest && known.insert(hash).second) {
        part->add(tokens, v);
        if (progress) progress(long(known.size()));
        vain = 0;
      } else if (++vain == patience) {
        throw std::invalid_argument("listops: only " + std::to_string(known.size()) + " different expressions of " +
                                    std::to_string(s.shortest) + " to " + std::to_string(s.longest) +
                                    " tokens and depth " + std::to_string(s.depth) +
                                    " were found; ask for fewer examples or for other lengths");
      }
    }
  }
  return result;
}

}  // namespace lra::listops
