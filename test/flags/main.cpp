// Compares the results of both parts: numbers, infinities, NaNs and status codes. Compiled without flags that assume
// finite numbers.
#include "report.hpp"

#include <cmath>
#include <cstdio>

std::vector<float> flags::some(std::size_t n, double scale, unsigned seed) {
  std::vector<float> v(n);
  for (float& x : v) {
    seed = seed * 1664525u + 1013904223u;
    x = static_cast<float>(scale * (static_cast<double>(seed >> 8) / 8388608 - 1));
  }
  return v;
}

double flags::value_of(unsigned bits, int exponent_bits) {
  int const digits = 15 - exponent_bits, most = (1 << exponent_bits) - 1;
  int const exponent = int(bits) >> digits & most, fraction = int(bits) & ((1 << digits) - 1);
  double const sign = bits >> 15 ? -1 : 1;
  if (exponent == most) return fraction ? NAN : sign * INFINITY;
  return sign *
         std::ldexp(exponent ? fraction + (1 << digits) : fraction, (exponent ? exponent : 1) - most / 2 - digits);
}

int main() {
  flags::report const expected = flags::fp64(), actual = flags::fp32();
  bool good = expected.size() == actual.size();
  for (std::size_t r = 0; r < expected.size() && r < actual.size(); r++) {
    double worst = 0;
    std::size_t at = 0;
    bool same = expected[r].values.size() == actual[r].values.size();
    for (std::size_t i = 0; same && i < expected[r].values.size(); i++) {
      double const a = expected[r].values[i], b = actual[r].values[i];
      double const error = std::isnan(a) || std::isnan(b) ? (std::isnan(a) && std::isnan(b) ? 0 : INFINITY)
                           : a == b                       ? 0
                                                          : std::abs(a - b) / std::fmax(1, std::abs(a));
      if (error > worst) worst = error, at = i;
    }
    bool const close = same && worst <= expected[r].bound;
    if (!close || worst > 0.5 * expected[r].bound)
      std::printf("%s: %s, error %g (bound %g) at %zu: expected %.9g, got %.9g\n", close ? "ok" : "WRONG",
                  expected[r].name.c_str(), worst, expected[r].bound, at, expected[r].values[at], actual[r].values[at]);
    good = good && close;
  }
  return good ? 0 : 1;
}
