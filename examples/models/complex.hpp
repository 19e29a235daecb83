// Complex numbers in CPU vector registers, real and imaginary parts in separate registers; interleaved in memory.
#pragma once
#include <tcnca/block/pack.hpp>

#include <cstring>
#include <utility>

namespace tcnca::models {

/// W complex numbers of T.
template <class T, int W>
struct complex_lanes {
  using vector = decltype(pack<T, W>::v);
  vector re, im;

  friend complex_lanes operator+(complex_lanes a, complex_lanes b) { return {a.re + b.re, a.im + b.im}; }
  friend complex_lanes operator-(complex_lanes a, complex_lanes b) { return {a.re - b.re, a.im - b.im}; }
  friend complex_lanes operator*(complex_lanes a, complex_lanes b) {
    return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re};
  }
  friend complex_lanes operator*(T s, complex_lanes a) { return {s * a.re, s * a.im}; }
  friend complex_lanes conj(complex_lanes a) { return {a.re, -a.im}; }
};

namespace detail {
template <int First, int Step, class V, int... I>
[[gnu::always_inline]] inline V pick(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (First + Step * I)...);
}
template <int First, class V, int... I>
[[gnu::always_inline]] inline V interleave(V a, V b, std::integer_sequence<int, I...>) {
  return __builtin_shufflevector(a, b, (First + I / 2 + I % 2 * int(sizeof...(I)))...);
}
template <class V, class T>
[[gnu::always_inline]] inline V read(T const* p) {
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
}  // namespace detail

/// Loads W consecutive complex numbers.
template <int W, class T>
[[gnu::always_inline]] inline complex_lanes<T, W> load_complex(T const* p) {
  if constexpr (W == 1) {
    return {p[0], p[1]};
  } else {
    using V = typename complex_lanes<T, W>::vector;
    constexpr std::make_integer_sequence<int, W> order;
    V const a = detail::read<V>(p), b = detail::read<V>(p + W);
    return {detail::pick<0, 2>(a, b, order), detail::pick<1, 2>(a, b, order)};
  }
}
/// Loads the complex numbers at p, p - 1, p - 2, ...
template <int W, class T>
[[gnu::always_inline]] inline complex_lanes<T, W> load_backwards(T const* p) {
  if constexpr (W == 1) {
    return {p[0], p[1]};
  } else {
    using V = typename complex_lanes<T, W>::vector;
    constexpr std::make_integer_sequence<int, W> order;
    p -= 2 * (W - 1);
    V const a = detail::read<V>(p), b = detail::read<V>(p + W);
    return {detail::pick<2 * W - 2, -2>(a, b, order), detail::pick<2 * W - 1, -2>(a, b, order)};
  }
}
template <int W, class T>
[[gnu::always_inline]] inline void store_complex(T* p, complex_lanes<T, W> z) {
  if constexpr (W == 1) {
    p[0] = z.re, p[1] = z.im;
  } else {
    constexpr std::make_integer_sequence<int, W> order;
    auto const a = detail::interleave<0>(z.re, z.im, order), b = detail::interleave<W / 2>(z.re, z.im, order);
    std::memcpy(p, &a, sizeof a), std::memcpy(p + W, &b, sizeof b);
  }
}
template <int W, class T>
[[gnu::always_inline]] inline void store_backwards(T* p, complex_lanes<T, W> z) {
  if constexpr (W == 1) {
    p[0] = z.re, p[1] = z.im;
  } else {
    constexpr std::make_integer_sequence<int, W> order;
    store_complex<W, T>(p - 2 * (W - 1),
                        {detail::pick<W - 1, -1>(z.re, z.re, order), detail::pick<W - 1, -1>(z.im, z.im, order)});
  }
}

}  // namespace tcnca::models
