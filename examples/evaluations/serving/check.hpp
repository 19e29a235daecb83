// Compares what was served with one call for the whole sequence.
#pragma once
#include <cmath>
#include <vector>

#include "../../models/model.hpp"
#include "requests.hpp"

namespace serving {

struct comparison {
  long terms = 0;  ///< layers times the longest sum of a layer
  long sequences = 0, tokens = 0;
  double largest = 0;     ///< difference of two logits
  double magnitude = 0;   ///< largest absolute logit
  long other_tokens = 0;  ///< tokens that the whole sequence's logits do not choose
  bool finite = true;

  /// Both sides add the same fp32 terms in different orders: a rounding for each term of the longest sum in each layer.
  double allowed() const { return 0x1p-24 * double(terms) * (1 + magnitude); }
  bool equal() const { return finite && largest <= allowed() && other_tokens == 0; }
};

/// Adds one sequence.
inline void compare(tcnca::models::model& model, request_source const& source, request const& r, long vocabulary,
                    double temperature, comparison& c) {
  long const length = long(r.tokens.size()) - 1;  // the last token was not read
  std::vector<float> whole(std::size_t(length * vocabulary));
  model.logits({1, length, r.tokens.data(), nullptr, nullptr}, whole.data());
  for (long i = 0; i < r.replied(); i++) {
    float const *const there = whole.data() + (r.prompt - 1 + i) * vocabulary, *const here =
                                                                                   r.logits.data() + i * vocabulary;
    for (long k = 0; k < vocabulary; k++) {
      c.largest = std::max(c.largest, double(std::abs(there[k] - here[k])));
      c.magnitude = std::max(c.magnitude, double(std::abs(there[k])));
      c.finite = c.finite && std::isfinite(there[k]) && std::isfinite(here[k]);
    }
    int const token = r.tokens[std::size_t(r.prompt + i)];
    // A draw at the border of two tokens may choose the other one. Probabilities differ by as much as exponents do.
    double const draw = source.draw(r.id, i), border = c.allowed() / std::max(temperature, 1e-3);
    bool chosen = false;
    if (temperature == 0) {
      float const most = *std::max_element(there, there + vocabulary);
      chosen = double(most - there[token]) <= 2 * c.allowed();
    } else {
      for (double const d : {draw, draw - border, draw + border})
        chosen = chosen || choose(there, vocabulary, temperature, d) == token;
    }
    c.other_tokens += !chosen;
  }
  c.sequences++, c.tokens += r.replied();
}

}  // namespace serving
