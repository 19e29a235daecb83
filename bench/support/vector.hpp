// The widest vector of floats of the target, and complex numbers in such vectors, for the loops of the baselines.
#pragma once
#include <cstddef>
#include <cstring>
#include <utility>

namespace tcnca::bench {

#if defined(__AVX512F__)
inline constexpr int lanes = 16;
#elif defined(__AVX__)
inline constexpr int lanes = 8;
#else
inline constexpr int lanes = 4;
#endif

typedef float floats __attribute__((vector_size(sizeof(float) * lanes)));

[[gnu::always_inline]] inline floats load(float const* p) {
  floats v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
[[gnu::always_inline]] inline void store(float* p, floats v) { std::memcpy(p, &v, sizeof v); }
[[gnu::always_inline]] inline floats splat(float v) { return v - floats{}; }

/// Complex numbers with separate real and imaginary parts: one (V = float) or `lanes` (V = floats).
template <class V>
struct complex_of {
  V re, im;

  friend complex_of operator+(complex_of a, complex_of b) { return {a.re + b.re, a.im + b.im}; }
  friend complex_of operator-(complex_of a, complex_of b) { return {a.re - b.re, a.im - b.im}; }
  friend complex_of operator*(complex_of a, complex_of b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
  }
  friend complex_of operator*(float s, complex_of a) { return {s * a.re, s * a.im}; }
  friend complex_of conj(complex_of a) { return {a.re, -a.im}; }
};

namespace detail {
template <int First, int Step, int... I>
[[gnu::always_inline]] inline floats pick(floats a, floats b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (First + Step * I)...);
}
template <int First, int... I>
[[gnu::always_inline]] inline floats zip(floats a, floats b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (First + I / 2 + I % 2 * lanes)...);
}
using order = std::make_integer_sequence<int, lanes>;
}  // namespace detail

/// Loads interleaved complex numbers: one at p, or `lanes` from p on.
template <class V>
[[gnu::always_inline]] inline complex_of<V> load_complex(float const* p) {
  if constexpr (sizeof(V) == sizeof(float)) {
    return {p[0], p[1]};
  } else {
    floats const a = load(p), b = load(p + lanes);
    return {detail::pick<0, 2>(a, b, detail::order{}), detail::pick<1, 2>(a, b, detail::order{})};
  }
}
/// Loads the complex number at p, or those at p, p - 1, p - 2, ...
template <class V>
[[gnu::always_inline]] inline complex_of<V> load_reversed(float const* p) {
  if constexpr (sizeof(V) == sizeof(float)) {
    return {p[0], p[1]};
  } else {
    p -= 2 * (lanes - 1);
    floats const a = load(p), b = load(p + lanes);
    return {detail::pick<2 * lanes - 2, -2>(a, b, detail::order{}),
            detail::pick<2 * lanes - 1, -2>(a, b, detail::order{})};
  }
}
template <class V>
[[gnu::always_inline]] inline void store_complex(float* p, complex_of<V> z) {
  if constexpr (sizeof(V) == sizeof(float)) {
    p[0] = z.re, p[1] = z.im;
  } else {
    store(p, detail::zip<0>(z.re, z.im, detail::order{}));
    store(p + lanes, detail::zip<lanes / 2>(z.re, z.im, detail::order{}));
  }
}
template <class V>
[[gnu::always_inline]] inline void store_reversed(float* p, complex_of<V> z) {
  if constexpr (sizeof(V) == sizeof(float)) {
    p[0] = z.re, p[1] = z.im;
  } else {
    auto const reverse = [](floats v) { return detail::pick<lanes - 1, -1>(v, v, detail::order{}); };
    store_complex<V>(p - 2 * (lanes - 1), {reverse(z.re), reverse(z.im)});
  }
}

/// Calls body.operator()<V>(k) for k in [first, last): whole vectors, then single elements.
template <class Body>
[[gnu::always_inline]] inline void for_bins(std::ptrdiff_t first, std::ptrdiff_t last, Body const& body) {
  for (; first + lanes <= last; first += lanes) body.template operator()<floats>(first);
  for (; first < last; first++) body.template operator()<float>(first);
}

}  // namespace tcnca::bench
