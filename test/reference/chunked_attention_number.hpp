// The functions of attention's equations for each number type: fp64, fp32, and bounded numbers.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "bounded.hpp"
#include "philox.hpp"

namespace tcnca::reference::attention {

using integer = std::int64_t;
using reference::bounded, reference::sum, reference::rounded, reference::value_of;

// Beyond the roundings of the operations, bounds assume:
//   element, tiny  where weights and derivatives of scores are operands of products with elements (matrix units need
//                  it), and where a result is stored
//   least          where exp underflows
//   4 u            for exp and log, relative, and for erf, absolute: 2 ulp of the libraries, 1e-7 and 1.5e-7 of the
//                  CPU's polynomials in fp32

/// A fraction of a sum of positive terms: between 0 and 1, whatever the errors are.
inline double fraction(double part, double whole) { return part / whole; }
inline float fraction(float part, float whole) { return part / whole; }
inline bounded fraction(bounded part, bounded whole) {
  double const v = part.v / whole.v, e = (part.e + v * whole.e) / std::max(0.0, whole.v - whole.e);
  return bounded(v, std::min(std::isnan(e) ? 1 : e, std::max(v, 1 - v))).rounded(2);
}

/// The naive computation in fp32 with tensors of a 16-bit type: rounds to that type. Null: tensors of fp32.
inline double (*float_element)(double) = nullptr;

// Rounded to an element, to be stored.
inline double stored(double x) { return x; }
inline float stored(float x) { return float_element ? float(float_element(double(x))) : x; }
using reference::stored;

// Rounded to an element as an operand of a product, before or after the multiplication with `scale`.
inline double operand(double x, double) { return x; }
inline float operand(float x, double) { return stored(x); }
inline bounded operand(bounded x, double scale) {
  return {x.v, x.e + bounded::element * x.most() + std::max(1.0, std::abs(scale)) * bounded::tiny};
}

// e^(x - top). The argument has the errors of both and a few roundings of each (they may have been multiplied by log2 e
// first). An online softmax multiplies by such a power again at each new maximum: up to `times` times.
inline double exp_difference(double x, double top, double) { return std::exp(x - top); }
inline float exp_difference(float x, float top, double) { return std::exp(x - top); }
inline bounded exp_difference(bounded x, bounded top, double times) {
  double const v = std::exp(x.v - top.v);
  if (std::isnan(v) || x.v == -INFINITY) return bounded(v);
  double const d = x.e + top.e + 3 * bounded::u * (x.most() + top.most());
  double const k = 5 * (times + 1) * bounded::u;
  return {v,
          (d < 1 ? v * (std::expm1(d) * (1 + k) + k) : std::exp(x.v - top.v + d) * (1 + k) - v) + 4 * bounded::least};
}
// top + log(total)
inline double log_sum(double top, double total) { return top + std::log(total); }
inline float log_sum(float top, float total) { return top + std::log(total); }
inline bounded log_sum(bounded top, bounded total) {
  double const part = total.e / total.v, l = std::log(total.v);
  return {top.v + l,
          top.e + (part < 1 ? -std::log1p(-part) : INFINITY) + 8 * bounded::u * (1 + top.most() + std::abs(l))};
}
// The weight of a softmax, recomputed from its score and the stored lse.
inline double again(double weight, double, double) { return weight; }
inline float again(float weight, float, float) { return weight; }
inline bounded again(bounded weight, bounded score, bounded lse) { return {weight.v, exp_difference(score, lse, 0).e}; }

// (1 + erf((x - mu) gain)) / 2. The difference rounds x and mu; the derivative there is at most that of the nearer end
// of where z may be.
inline double laplace(double x, double mu, double gain) { return 0.5 * std::erfc((mu - x) * gain); }
inline float laplace(float x, double mu, double gain) { return 0.5f * (1 + std::erf((x - float(mu)) * float(gain))); }
inline double laplace_moved(bounded x, double mu) { return x.e + 2 * bounded::u * (x.most() + mu); }
inline bounded laplace(bounded x, double mu, double gain) {
  double const z = std::abs(x.v - mu) * gain, d = gain * laplace_moved(x, mu) + 3 * bounded::u * z,
               near = std::max(0.0, z - d);
  double const steep = 1.1283791670955126 * std::exp(-near * near);
  return {laplace(x.v, mu, gain), std::isfinite(z) ? 0.5 * (steep * d + 4 * bounded::u) + 2 * bounded::u : 0};
}
// Its derivative gain / sqrt(pi) e^-z^2; its curvature is at most gain^2 times 2 / sqrt(pi) max(z e^-z^2) = 0.48394.
inline double laplace_derivative(double x, double mu, double gain) {
  double const z = (x - mu) * gain;
  return gain * 0.56418958354775629 * std::exp(-z * z);
}
inline float laplace_derivative(float x, double mu, double gain) {
  float const z = (x - float(mu)) * float(gain);
  return float(gain * 0.56418958354775629) * std::exp(-z * z);
}
inline bounded laplace_derivative(bounded x, double mu, double gain) {
  double const v = laplace_derivative(x.v, mu, gain), z = (x.v - mu) * gain;
  if (!std::isfinite(z)) return bounded(v);
  return {v, 0.48394 * gain * gain * laplace_moved(x, mu) + v * bounded::u * (8 + 6 * z * z) + 4 * bounded::least};
}

// max(x, 0), and its square
inline double positive(double x) { return x < 0 ? 0 : x; }
inline float positive(float x) { return x < 0 ? 0 : x; }
inline bounded positive(bounded x) { return {positive(x.v), x.e}; }
template <class N>
N square_positive(N x) {
  return positive(x) * positive(x);
}

/// Cosine and sine of an angle, a product with a power. The angle is computed in fp64: in fp32, chunks of thousands
/// would lose its phase.
template <class N>
std::pair<N, N> turn(double angle) {
  return {N(std::cos(angle)), N(std::sin(angle))};
}
template <>
inline std::pair<bounded, bounded> turn<bounded>(double angle) {
  double const e = 4 * bounded::u + 16 * 0x1p-53 * std::abs(angle);
  return {{std::cos(angle), e}, {std::sin(angle), e}};
}
template <>
inline std::pair<float, float> turn<float>(double angle) {
  return {float(std::cos(angle)), float(std::sin(angle))};
}

}  // namespace tcnca::reference::attention
