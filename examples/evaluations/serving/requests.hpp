// Requests for text: prompts cut from a text, and how each next token is chosen.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "../language/text.hpp"
#include "../training/random.hpp"

namespace serving {

/// A prompt and the tokens of its reply so far.
struct request {
  long id = 0, prompt = 0, wanted = 0;  ///< `wanted` tokens of reply
  std::vector<int> tokens = {};
  std::vector<float> logits = {};  ///< of the reply's tokens, if the request is checked later

  long replied() const { return long(tokens.size()) - prompt; }
  bool complete() const { return replied() >= wanted; }
};

/// Requests are functions of the seed and their number. Prompts are pieces of a text; lengths are uniform from 1.
class request_source {
 public:
  request_source(std::vector<std::uint8_t> text, long longest_prompt, long longest_reply, std::uint64_t seed)
      : text_(std::move(text)),
        longest_prompt_(std::min(longest_prompt, long(text_.size()))),
        longest_reply_(longest_reply),
        seed_(seed) {}

  request operator()(long id) const {
    std::mt19937_64 random(tcnca::training::mix(seed_, std::uint64_t(id)));
    auto const up_to = [&](long n) { return 1 + long(tcnca::training::below(random, std::uint64_t(n))); };
    request r{.id = id, .prompt = up_to(longest_prompt_), .wanted = up_to(longest_reply_)};
    auto const first = text_.begin() + up_to(long(text_.size()) - r.prompt + 1) - 1;
    r.tokens.reserve(std::size_t(r.prompt + r.wanted));
    r.tokens.assign(first, first + r.prompt);
    return r;
  }
  /// The random number that chooses a token, in (0, 1): a function of the request and the token's place in it.
  double draw(long id, long place) const {
    std::uint64_t const request_seed = tcnca::training::mix(~seed_, std::uint64_t(id));
    return (double(tcnca::training::mix(request_seed, std::uint64_t(place)) >> 11) + 0.5) * 0x1p-53;
  }

 private:
  std::vector<std::uint8_t> text_;
  long longest_prompt_, longest_reply_;
  std::uint64_t seed_;
};

/// Samples from softmax(logits / temperature); at temperature 0 the most likely token, of equal ones the first.
inline int choose(float const* logits, long count, double temperature, double draw) {
  long const most = std::max_element(logits, logits + count) - logits;
  if (temperature == 0) return int(most);
  float const scale = float(1 / temperature), maximum = logits[most];
  auto const weight = [&](long i) { return std::exp((logits[i] - maximum) * scale); };
  double total = 0;
  for (long i = 0; i < count; i++) total += double(weight(i));
  double left = draw * total;
  for (long i = 0; i < count; i++)
    if ((left -= double(weight(i))) < 0) return int(i);
  return int(most);  // the draw was lost in rounding
}

}  // namespace serving
