// Text generation: samples characters from a model at O(1) per character.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

#include "../../models/model.hpp"
#include "../training/interruption.hpp"
#include "../training/random.hpp"
#include "text.hpp"

namespace language {

struct sampling {
  double temperature = 1;  ///< 0: always the most likely character
  long top_k = 0;          ///< only the k most likely characters; 0: all
  unsigned long seed = 1;
};

/// Samples from softmax(logits / temperature) over the top k; of equal logits the first comes first. `uniform` is in
/// (0, 1).
inline int draw(std::vector<float> const& logits, sampling const& s, double uniform) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return logits[std::size_t(a)] > logits[std::size_t(b)]; });
  if (s.temperature == 0) return order.front();
  if (s.top_k > 0 && s.top_k < long(order.size())) order.resize(std::size_t(s.top_k));
  auto const weight = [&](int i) {
    return std::exp((double(logits[std::size_t(i)]) - double(logits[std::size_t(order.front())])) / s.temperature);
  };
  double total = 0;
  for (int const i : order) total += weight(i);
  double left = uniform * total;
  for (int const i : order)
    if ((left -= weight(i)) < 0) return i;
  return order.back();
}

/// Characters written, and the time.
struct written {
  long characters = 0;
  double seconds = 0;
};

/// Lets the model read the prompt, then generates `count` characters and passes each to `write`. Ends early if `write`
/// returns false or a signal asks for it.
inline written generate(tcnca::models::model& model, long longest_read, alphabet const& known,
                        std::string const& before, long count, sampling const& how,
                        std::function<bool(char)> const& write) {
  std::vector<std::uint8_t> const ids = known.ids(before);
  std::vector<int> tokens(ids.begin(), ids.end());
  if (tokens.empty()) tokens.push_back(known.has('\n') ? known.id('\n') : 0);  // a model needs a first token
  std::vector<float> logits(std::size_t(known.size()));
  auto const read = [&](int const* from, long length) {
    model.read({1, length, from, nullptr, nullptr}, logits.data());
  };
  std::mt19937_64 random(how.seed);
  tcnca::training::interruption const signals;
  auto const asked = [] { return tcnca::training::interruption::asked() != 0; };
  model.reset_state();
  for (std::size_t i = 0; i < tokens.size() && !asked();) {
    long const now = std::min(longest_read, long(tokens.size() - i));
    read(&tokens[i], now);
    i += std::size_t(now);
  }
  auto const start = std::chrono::steady_clock::now();
  written result;
  while (result.characters < count && !asked()) {
    int const token = draw(logits, how, tcnca::training::uniform(random));
    result.characters++;
    if (!write(known.symbol(token))) break;
    read(&token, 1);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  model.reset_state();
  return result;
}

}  // namespace language
