// Conversions between elements and fp64, independent of the library's, and random numbers.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>

#include <tcnca/core/numeric.hpp>

#include "fiber.hpp"

namespace tcnca::testing {

/// A binary format: bits of the significand (the leading one included), smallest and largest exponent of a normal
/// number.
struct format {
  int digits, least, greatest;
};
template <class T>
inline constexpr format format_of{std::numeric_limits<T>::digits, std::numeric_limits<T>::min_exponent - 1,
                                  std::numeric_limits<T>::max_exponent - 1};
template <>
inline constexpr format format_of<bf16>{8, -126, 127};
template <>
inline constexpr format format_of<fp16>{11, -14, 15};

/// Half the smallest positive number of T: the largest rounding error of denormal numbers.
template <class T>
double underflow() {
  return std::ldexp(1, format_of<T>.least - format_of<T>.digits);
}

/// x rounded to nearest even in the format; infinity if it exceeds the largest number.
inline double round_to(double x, format f) {
  if (x == 0 || !std::isfinite(x)) return x;
  int const exponent = std::max(std::ilogb(x), f.least), ulp = exponent - (f.digits - 1);
  double const y = std::ldexp(std::nearbyint(std::ldexp(x, -ulp)), ulp);
  return y != 0 && std::ilogb(y) > f.greatest ? std::copysign(INFINITY, x) : y;
}

template <class T>
T from_double(double x) {
  if constexpr (std::is_floating_point_v<T>) {
    return T(x);
  } else {
    constexpr format f = format_of<T>;
    constexpr int fraction = f.digits - 1;
    unsigned const sign = std::signbit(x) ? 0x8000u : 0u, infinite = unsigned(f.greatest - f.least + 2) << fraction;
    double const y = std::abs(round_to(x, f));
    unsigned bits = infinite;
    if (std::isnan(y)) bits |= 1u << (fraction - 1);
    else if (y == 0) bits = 0;
    else if (std::isfinite(y)) {
      int const exponent = std::max(std::ilogb(y), f.least);
      // The leading one of a normal number adds one to the exponent's field.
      bits = (unsigned(exponent - f.least) << fraction) + unsigned(std::ldexp(y, fraction - exponent));
    }
    return T{std::uint16_t(sign | bits)};
  }
}

template <class T>
double to_double(T x) {
  if constexpr (std::is_floating_point_v<T>) {
    return x;
  } else {
    constexpr format f = format_of<T>;
    constexpr int fraction = f.digits - 1;
    int const field = (x.bits & 0x7fff) >> fraction, rest = x.bits & ((1 << fraction) - 1);
    double magnitude = 0;
    if (field == f.greatest - f.least + 2) magnitude = rest ? NAN : INFINITY;
    else if (field == 0) magnitude = std::ldexp(rest, f.least - fraction);
    else magnitude = std::ldexp(rest + (1 << fraction), f.least + field - 1 - fraction);
    return x.bits & 0x8000 ? -magnitude : magnitude;
  }
}

/// Uniform in [-1, 1).
inline double uniform(random_bits& r) { return std::ldexp(double(r() >> 11), -52) - 1; }
/// In [low, high].
inline int between(random_bits& r, int low, int high) { return low + r.below(high - low + 1); }

/// The number in an environment variable, or `otherwise`.
inline std::uint64_t environment(char const* name, std::uint64_t otherwise) {
  char const* const s = std::getenv(name);
  return s && *s ? std::strtoull(s, nullptr, 0) : otherwise;
}

template <class T>
inline constexpr char const* name_of = "";
template <>
inline constexpr char const* name_of<double> = "double";
template <>
inline constexpr char const* name_of<float> = "float";
template <>
inline constexpr char const* name_of<bf16> = "bf16";
template <>
inline constexpr char const* name_of<fp16> = "fp16";

}  // namespace tcnca::testing
