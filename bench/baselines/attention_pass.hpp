// The passes over rows of scores between an opponent's matrix products: softmax and laplace, forward and backward, in whole registers.
// fp32. A row has room for whole registers: its entries from `valid` to `width` are masked, and what lies behind is never used.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include <tcnca/core/config.hpp>
#include "../support/convert.hpp"
#include "../support/vector.hpp"

namespace tcnca::bench {

typedef int ints __attribute__((vector_size(sizeof(int) * lanes)));

namespace detail {
[[gnu::always_inline]] inline ints bits(floats v) { return __builtin_bit_cast(ints, v); }
[[gnu::always_inline]] inline floats from_bits(ints v) { return __builtin_bit_cast(floats, v); }
/// ok ? a : b, lane by lane (ok is 0 or all ones).
[[gnu::always_inline]] inline floats choose(ints ok, floats a, floats b) {
  return from_bits((ok & bits(a)) | (~ok & bits(b)));
}
[[gnu::always_inline]] inline floats larger(floats a, floats b) { return choose(a > b, a, b); }
[[gnu::always_inline]] inline floats smaller(floats a, floats b) { return choose(a < b, a, b); }
/// All ones in the first `count` lanes.
[[gnu::always_inline]] inline ints first_lanes(index_t count) {
  ints lane;
  for (int i = 0; i < lanes; i++) lane[i] = i;
  int const n = static_cast<int>(std::min<index_t>(count, lanes));
  return lane < n - ints{};
}
inline float sum(floats v) {
  float s = 0;
  for (int i = 0; i < lanes; i++) s += v[i];
  return s;
}
inline float largest(floats v) {
  float m = v[0];
  for (int i = 1; i < lanes; i++) m = std::max(m, v[i]);
  return m;
}
/// Zeroes the registers behind the valid entries.
inline void mask_rest(float* row, index_t valid, index_t width) {
  for (index_t j = (valid + lanes - 1) / lanes * lanes; j < width; j += lanes) store(row + j, floats{});
}
}  // namespace detail

/// 2^x, to 2 units in the last place; 2^-126 below that.
[[gnu::always_inline]] inline floats exp2(floats x) {
  x = detail::larger(x, splat(-126.f));
  floats const magic = splat(12582912.f);  // 1.5 * 2^23: adding it rounds to an integer
  floats const shifted = x + magic, f = x - (shifted - magic);
  floats p = splat(1.535336188e-4f);
  p = p * f + splat(1.339887440e-3f);
  p = p * f + splat(9.618437357e-3f);
  p = p * f + splat(5.550332471e-2f);
  p = p * f + splat(2.402264791e-1f);
  p = p * f + splat(6.931472028e-1f);
  p = p * f + splat(1.f);
  return detail::from_bits(detail::bits(p) + (detail::bits(shifted) << 23));
}

/// The error function by a rational of degrees 13 and 8, to about 3e-7.
[[gnu::always_inline]] inline floats erf(floats x) {
  x = detail::larger(detail::smaller(x, splat(4.f)), splat(-4.f));
  floats const s = x * x;
  floats p = splat(-2.72614225801306e-10f);
  p = p * s + splat(2.77068142495902e-08f);
  p = p * s + splat(-2.10102402082508e-06f);
  p = p * s + splat(-5.69250639462346e-05f);
  p = p * s + splat(-7.34990630326855e-04f);
  p = p * s + splat(-2.95459980854025e-03f);
  p = p * s + splat(-1.60960333262415e-02f);
  floats q = splat(-1.45660718464996e-05f);
  q = q * s + splat(-2.13374055278905e-04f);
  q = q * s + splat(-1.68282697438203e-03f);
  q = q * s + splat(-7.37332916720468e-03f);
  q = q * s + splat(-1.42647390514189e-02f);
  return x * p / q;
}

inline constexpr float log2_e = std::numbers::log2e_v<float>;
/// The laplace function: A = 0.5 (1 + erf((S - mu) / (sigma sqrt 2))), mu = sqrt(1/2), sigma = sqrt(1 / (4 pi)).
inline constexpr float laplace_mu = 0.70710678f, laplace_slope = 2.50662827f;  // the slope is 1 / (sigma sqrt 2)

/// to = softmax(scale * from) over the valid entries; returns the logarithm of the sum.
inline float softmax_row(float const* from, float* to, index_t valid, index_t width, float scale) {
  floats m[4];
  for (auto& v : m) v = splat(-std::numeric_limits<float>::infinity());
  index_t j = 0;
  for (; j + 4 * lanes <= valid; j += 4 * lanes)
    for (int i = 0; i < 4; i++) m[i] = detail::larger(m[i], load(from + j + i * lanes));
  for (; j < valid; j += lanes)
    m[0] = detail::larger(m[0], detail::choose(detail::first_lanes(valid - j), load(from + j), m[0]));
  float const top = detail::largest(detail::larger(detail::larger(m[0], m[1]), detail::larger(m[2], m[3])));
  floats const factor = splat(scale * log2_e), shift = splat(top * scale * log2_e);
  floats s[2] = {};
  for (j = 0; j + 2 * lanes <= valid; j += 2 * lanes)
    for (int i = 0; i < 2; i++) {
      floats const e = exp2(load(from + j + i * lanes) * factor - shift);
      s[i] += e;
      store(to + j + i * lanes, e);
    }
  for (; j < valid; j += lanes) {
    floats const e = detail::choose(detail::first_lanes(valid - j), exp2(load(from + j) * factor - shift), floats{});
    s[0] += e;
    store(to + j, e);
  }
  float const total = detail::sum(s[0] + s[1]);
  floats const inverse = splat(1 / total);
  for (j = 0; j < valid; j += lanes) store(to + j, load(to + j) * inverse);
  detail::mask_rest(to, valid, width);
  return top * scale + std::log(total);
}

/// Scores to probabilities again, with the logarithm of the sum kept; and, in the same pass, grad: from dL/dP to dL/dS times scale.
inline void softmax_backward_row(float* scores, float* grad, index_t valid, index_t width, float scale, float lse,
                                 float delta) {
  floats const factor = splat(scale * log2_e), shift = splat(lse * log2_e), d = splat(delta), s = splat(scale);
  for (index_t j = 0; j < valid; j += lanes) {
    ints const ok = detail::first_lanes(valid - j);
    floats const p = exp2(load(scores + j) * factor - shift);
    store(scores + j, detail::choose(ok, p, floats{}));
    store(grad + j, detail::choose(ok, p * (load(grad + j) - d) * s, floats{}));
  }
  detail::mask_rest(scores, valid, width);
  detail::mask_rest(grad, valid, width);
}
/// The same with the probabilities kept.
inline void softmax_backward_kept_row(float const* p, float* grad, index_t valid, index_t width, float scale,
                                      float delta) {
  floats const d = splat(delta), s = splat(scale);
  for (index_t j = 0; j < valid; j += lanes)
    store(grad + j, detail::choose(detail::first_lanes(valid - j), load(p + j) * (load(grad + j) - d) * s, floats{}));
  detail::mask_rest(grad, valid, width);
}

/// to = laplace(scale * from) at the valid entries, 0 elsewhere.
inline void laplace_row(float const* from, float* to, index_t valid, index_t width, float scale) {
  floats const factor = splat(scale * laplace_slope), shift = splat(laplace_mu * laplace_slope), half = splat(0.5f);
  for (index_t j = 0; j < valid; j += lanes)
    store(to + j,
          detail::choose(detail::first_lanes(valid - j), half + half * erf(load(from + j) * factor - shift), floats{}));
  detail::mask_rest(to, valid, width);
}
/// to = laplace(scale * scores), and grad from dL/dA to dL/dS times scale: dA/dS = sqrt(2) exp(-u^2), u what the error function sees.
inline void laplace_backward_row(float const* scores, float* to, float* grad, index_t valid, index_t width,
                                 float scale) {
  floats const factor = splat(scale * laplace_slope), shift = splat(laplace_mu * laplace_slope), half = splat(0.5f);
  floats const slope = splat(scale * std::numbers::sqrt2_v<float>);
  for (index_t j = 0; j < valid; j += lanes) {
    ints const ok = detail::first_lanes(valid - j);
    floats const u = load(scores + j) * factor - shift;
    store(to + j, detail::choose(ok, half + half * erf(u), floats{}));
    store(grad + j, detail::choose(ok, load(grad + j) * slope * exp2(u * u * splat(-log2_e)), floats{}));
  }
  detail::mask_rest(to, valid, width);
  detail::mask_rest(grad, valid, width);
}

inline float dot(float const* a, float const* b, index_t count) {
  floats s[4] = {};
  index_t j = 0;
  for (; j + 4 * lanes <= count; j += 4 * lanes)
    for (int i = 0; i < 4; i++) s[i] += load(a + j + i * lanes) * load(b + j + i * lanes);
  float rest = 0;
  for (; j < count; j++) rest += a[j] * b[j];
  return detail::sum(s[0] + s[1] + s[2] + s[3]) + rest;
}
inline float dot(bf16 const* a, bf16 const* b, index_t count) {
  constexpr index_t piece = 256;
  float wide_a[piece], wide_b[piece], sum = 0;
  for (index_t j = 0; j < count; j += piece) {
    index_t const n = std::min(piece, count - j);
    widen(wide_a, a + j, n), widen(wide_b, b + j, n);
    sum += dot(wide_a, wide_b, n);
  }
  return sum;
}

}  // namespace tcnca::bench
