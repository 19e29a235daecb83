// A baseline: character frequencies given the previous one or two characters.
#pragma once
#include <array>
#include <cmath>
#include <cstdint>
#include <vector>

#include "text.hpp"

namespace language {

/// Bits per character of one part of a text, predicted from the 0, 1 and 2 previous characters by frequencies counted
/// in another part, smoothed with shorter contexts (Witten-Bell: unseen successors get the weight of the number of
/// distinct successors).
inline std::array<double, 3> n_gram_bits(std::uint8_t const* text, span counted, span predicted, long symbols) {
  struct context {
    double total = 0, different = 0;
  };
  auto const v = std::size_t(symbols);
  std::array<std::vector<context>, 3> contexts;
  std::array<std::vector<float>, 3> pairs;  // counts of a context and a successor; exact up to 2^24
  // The index of the context of an order before position t.
  auto const context_of = [&](std::size_t order, long t) {
    std::size_t i = 0;
    for (std::size_t k = order; k > 0; k--) i = i * v + text[t - long(k)];
    return i;
  };
  std::size_t many = 1;
  for (std::size_t order = 0; order < 3; order++, many *= v) {
    contexts[order].resize(many), pairs[order].resize(many * v);
    for (long t = counted.begin + long(order); t < counted.end; t++) {
      context& c = contexts[order][context_of(order, t)];
      float& n = pairs[order][context_of(order, t) * v + text[t]];
      c.total++, c.different += n == 0, n++;
    }
  }
  std::array<double, 3> bits{};
  long const first = std::max(predicted.begin, 2L);
  for (long t = first; t < predicted.end; t++) {
    double p = 1 / double(symbols);
    for (std::size_t order = 0; order < 3; order++) {
      context const& c = contexts[order][context_of(order, t)];
      if (c.total > 0)
        p = (double(pairs[order][context_of(order, t) * v + text[t]]) + c.different * p) / (c.total + c.different);
      bits[order] -= std::log2(p);
    }
  }
  for (double& b : bits) b /= double(predicted.end - first);
  return bits;
}

}  // namespace language
