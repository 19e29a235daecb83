// The passes over rows of scores between matrix products: softmax and laplace, forward and backward, vectorized, in
// fp32. Rows are padded to whole vectors. Entries from `valid` to `width` are masked; those from `width` on are never
// used.
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
[[gnu::always_inline]] inline floats max(floats a, floats b) { return choose(a > b, a, b); }
[[gnu::always_inline]] inline floats min(floats a, floats b) { return choose(a < b, a, b); }
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
inline float reduce_max(floats v) {
  float m = v[0];
  for (int i = 1; i < lanes; i++) m = std::max(m, v[i]);
  return m;
}
/// Zeroes the vectors after the one with the last valid entry.
inline void zero_masked(float* row, index_t valid, index_t width) {
  for (index_t j = (valid + lanes - 1) / lanes * lanes; j < width; j += lanes) store(row + j, floats{});
}
}  // namespace detail

/// 2^x with an error of 2 ulp; 2^-126 for smaller results.
[[gnu::always_inline]] inline floats exp2(floats x) {
  x = detail::max(x, splat(-126.f));
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

/// The error function as a rational function of degrees 13 and 8; absolute error 3e-7.
[[gnu::always_inline]] inline floats erf(floats x) {
  x = detail::max(detail::min(x, splat(4.f)), splat(-4.f));
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
inline constexpr float laplace_mu = 0.70710678f, laplace_factor = 2.50662827f;  // 1 / (sigma sqrt 2)

/// to = softmax(scale * from) over the valid entries; returns the logarithm of the sum.
inline float softmax_row(float const* from, float* to, index_t valid, index_t width, float scale) {
  floats m[4];
  for (auto& v : m) v = splat(-std::numeric_limits<float>::infinity());
  index_t j = 0;
  for (; j + 4 * lanes <= valid; j += 4 * lanes)
    for (int i = 0; i < 4; i++) m[i] = detail::max(m[i], load(from + j + i * lanes));
  for (; j < valid; j += lanes)
    m[0] = detail::max(m[0], detail::choose(detail::first_lanes(valid - j), load(from + j), m[0]));
  float const row_max = detail::reduce_max(detail::max(detail::max(m[0], m[1]), detail::max(m[2], m[3])));
  floats const factor = splat(scale * log2_e), shift = splat(row_max * scale * log2_e);
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
  detail::zero_masked(to, valid, width);
  return row_max * scale + std::log(total);
}

/// Recomputes the probabilities from the scores and the saved log-sum-exp; in the same pass, grad: from dL/dP to
/// dL/dS * scale.
inline void softmax_backward_row(float* scores, float* grad, index_t valid, index_t width, float scale, float lse,
                                 float delta) {
  floats const factor = splat(scale * log2_e), shift = splat(lse * log2_e), d = splat(delta), s = splat(scale);
  for (index_t j = 0; j < valid; j += lanes) {
    ints const ok = detail::first_lanes(valid - j);
    floats const p = exp2(load(scores + j) * factor - shift);
    store(scores + j, detail::choose(ok, p, floats{}));
    store(grad + j, detail::choose(ok, p * (load(grad + j) - d) * s, floats{}));
  }
  detail::zero_masked(scores, valid, width);
  detail::zero_masked(grad, valid, width);
}
/// The same with saved probabilities.
inline void softmax_backward_saved_row(float const* p, float* grad, index_t valid, index_t width, float scale,
                                       float delta) {
  floats const d = splat(delta), s = splat(scale);
  for (index_t j = 0; j < valid; j += lanes)
    store(grad + j, detail::choose(detail::first_lanes(valid - j), load(p + j) * (load(grad + j) - d) * s, floats{}));
  detail::zero_masked(grad, valid, width);
}

/// to = laplace(scale * from) for valid entries, 0 for masked ones.
inline void laplace_row(float const* from, float* to, index_t valid, index_t width, float scale) {
  floats const factor = splat(scale * laplace_factor), shift = splat(laplace_mu * laplace_factor), half = splat(0.5f);
  for (index_t j = 0; j < valid; j += lanes)
    store(to + j,
          detail::choose(detail::first_lanes(valid - j), half + half * erf(load(from + j) * factor - shift), floats{}));
  detail::zero_masked(to, valid, width);
}
/// to = laplace(scale * scores); grad: from dL/dA to dL/dS * scale, with dA/dS = sqrt(2) exp(-u^2), u the argument of
/// erf.
inline void laplace_backward_row(float const* scores, float* to, float* grad, index_t valid, index_t width,
                                 float scale) {
  floats const factor = splat(scale * laplace_factor), shift = splat(laplace_mu * laplace_factor), half = splat(0.5f);
  floats const derivative = splat(scale * std::numbers::sqrt2_v<float>);
  for (index_t j = 0; j < valid; j += lanes) {
    ints const ok = detail::first_lanes(valid - j);
    floats const u = load(scores + j) * factor - shift;
    store(to + j, detail::choose(ok, half + half * erf(u), floats{}));
    store(grad + j, detail::choose(ok, load(grad + j) * derivative * exp2(u * u * splat(-log2_e)), floats{}));
  }
  detail::zero_masked(to, valid, width);
  detail::zero_masked(grad, valid, width);
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
  constexpr index_t block = 256;
  float fp32_a[block], fp32_b[block], sum = 0;
  for (index_t j = 0; j < count; j += block) {
    index_t const n = std::min(block, count - j);
    widen(fp32_a, a + j, n), widen(fp32_b, b + j, n);
    sum += dot(fp32_a, fp32_b, n);
  }
  return sum;
}

}  // namespace tcnca::bench
