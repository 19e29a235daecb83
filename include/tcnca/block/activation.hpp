// Activations on packs, with their derivatives.
// CPU, fp32: polynomials on vectors; relative error of exp 1e-7, of tanh and erf 1.5e-7, also with -ffast-math. CPU,
// fp64, and CUDA: the functions of the math library for each lane, but for SiLU in fp32 on CUDA, whose error is a few
// units in the last place of x. With nvcc's --use_fast_math, fp32 on CUDA uses approximate instructions: the relative
// error of exp is about 2^-21 times its argument, that of tanh (activations tanh, gelu_tanh) 2^-11, and denormals are
// zero.
#pragma once
#include "../arch/approximate.hpp"
#include "../core/options.hpp"
#include "pack.hpp"
#include "unroll.hpp"
#if !defined(__CUDACC_RTC__)
#include <cmath>
#endif

#if defined(__clang__) && !defined(__CUDACC__)
#pragma float_control(push)
#pragma float_control(precise, on)
#endif

namespace tcnca::inline TCNCA_TARGET {

namespace detail {

#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
inline constexpr bool polynomials = false;
#else
inline constexpr bool polynomials = true;
#endif

template <class T, int W, int N>
TCNCA_HOST_DEVICE pack<T, W> horner(pack<T, W> x, array<T const, N>& c) {
  auto y = broadcast<W>(c[N - 1]);
  unroll<2, N + 1>([&](auto i) TCNCA_INLINE { y = fma(y, x, broadcast<W>(c[N - int(i)])); });
  return y;
}

#if !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)
/// x in each lane, at least `least` and at most `most`; a NaN stays NaN.
template <int W>
TCNCA_HOST_DEVICE pack<float, W> clamp(pack<float, W> x, float least, float most) {
  return {min_or_second(broadcast<W>(most).v, max_or_second(broadcast<W>(least).v, x.v))};
}

/// e^x, or e^-x if Negative, for a power in [-87, 88]; NaN for NaN.
template <bool Negative, int W>
TCNCA_HOST_DEVICE pack<float, W> exp_in_range(pack<float, W> x) {
  // power = n ln 2 + r, |r| <= ln(2)/2; e^r by a minimax polynomial; 2^n by its bits. A negative sign is a part of the
  // multiply-adds.
  using floats = decltype(x.v);
  using ints = typename vector_of<int, W>::type;
  auto const constant = [](float c) TCNCA_INLINE { return broadcast<W>(c).v; };
  constexpr float sign = Negative ? -1.f : 1.f;
  // The last bits of `shifted` are n + 127, the exponent of 2^n. no_contract() stops -ffast-math from reassociating
  // these sums, which round to an integer and keep the remainder exact.
  floats const round = constant(12582912.f + 127.f);
  floats const shifted = no_contract(fused(x.v, constant(sign * 1.44269504f), round));
  floats const n = no_contract(shifted - round);
  floats const rest = no_contract(fused(n, constant(-sign * 0.693359375f), x.v));
  floats const r = fused(n, constant(2.12194440e-4f), Negative ? -rest : rest);
  float const c[] = {1.f, 1.f, 0.5000000027f, 0.16666576646f, 0.04166637413f, 0.008363235074f, 0.0013941214246f};
  return {horner(pack<float, W>{r}, c).v * bits_as<floats>(bits_as<ints>(shifted) << 23)};
}
#endif

/// e^x. CPU, fp32: x is clamped to [-87, 88].
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> exp(pack<T, W> x) {
  if constexpr (polynomials && same<T, float>) {
#if !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)
    return exp_in_range<false>(clamp(x, -87, 88));
#endif
  } else {
    return map(x, [](T a) TCNCA_INLINE {
#if defined(__CUDACC__)
      return ::exp(a);
#else
      return std::exp(a);
#endif
    });
  }
}

/// e^x; 0 where the result is not a normal number, as for -infinity.
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> exp_or_zero(pack<T, W> x) {
  constexpr T least = sizeof(T) == 4 ? T(-87) : T(-708);
  return select_positive(broadcast<W>(least) - x, broadcast<W>(T(0)), exp(x));
}

/// tanh x.
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> tanh(pack<T, W> x) {
  if constexpr (polynomials && same<T, float>) {
    float const c[] = {-0.33333327f, 0.13332619f, -0.05382791f, 0.02088914f, -0.00594224f};
    auto const z = x * x, one = broadcast<W>(1.f);
    auto const near_zero = fma(x * z, horner(z, c), x);
    auto const e = exp(x + x);
    auto const large = one - broadcast<W>(2.f) / (e + one);
    return select_positive(broadcast<W>(0.4225f) - z, near_zero, large);
  } else {
    return map(x, [](T a) TCNCA_INLINE {
#if defined(__CUDACC__)
      return ::tanh(a);
#else
      return std::tanh(a);
#endif
    });
  }
}

/// erf x.
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> erf(pack<T, W> x) {
  if constexpr (polynomials && same<T, float>) {
    // |x| < 1: x p(x^2). Else: 1 - e^(-x^2) q(1 / (|x| + 2)), fitted up to |x| = 4.2, where erfc vanishes in fp32.
    float const p[] = {1.12837917f,    -0.376126271f,   0.112836002f, -0.0268544446f,
                       0.00518953534f, -8.02084127e-4f, 7.8891195e-5f};
    float const q[] = {-1.46606783e-4f, 0.569601022f, 1.04156773f,  2.76289403f,
                       -1.57719203f,    17.8265998f,  -29.8887312f, 15.1223711f};
    auto const zero = broadcast<W>(0.f), one = broadcast<W>(1.f), z = x * x;
    // a = -min(|x|, 16). The bound keeps infinities out of the division, which -ffast-math computes by an estimate.
    auto const a = max_or_second(broadcast<W>(-16.f).v, -max_or_second(x.v, (zero - x).v));
    auto const near_zero = x * horner(z, p);
    auto const tail = exp(zero - z) * horner(one / (broadcast<W>(2.f) - pack<T, W>{a}), q);
    auto const large = select_positive(x, one - tail, tail - one);
    return select_positive(one - z, near_zero, large);
  } else {
    return map(x, [](T a) TCNCA_INLINE {
#if defined(__CUDACC__)
      return ::erf(a);
#else
      return std::erf(a);
#endif
    });
  }
}

/// 1 / (1 + e^-x).
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> sigmoid(pack<T, W> x) {
  auto const one = broadcast<W>(T(1));
  if constexpr (polynomials && same<T, float>) {
#if !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)
    return one / (one + exp_in_range<true>(clamp(x, -88, 87)));
#endif
  } else {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
    if constexpr (same<T, float>) {
      return map(x, [](T a) TCNCA_INLINE { return reciprocal(1 + ::exp(-a)); });
    }
#endif
    return one / (one + exp(broadcast<W>(T(0)) - x));
  }
}

/// The same for products with x, whose error is a few units in the last place of x. fp32 on a GPU: an exponential in
/// two instructions, which is less exact for large |x|.
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> sigmoid_for_product(pack<T, W> x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  if constexpr (same<T, float>) {
    return map(x, [](T a) TCNCA_INLINE { return reciprocal(1 + exp2_or_zero(a * -1.44269504f)); });
  }
#endif
  return sigmoid(x);
}

}  // namespace detail

/// e^x in each lane. fp32 on the CPU: relative error 1e-7, and x is clamped to [-87, 88]; a NaN stays one.
using detail::exp;

/// An activation's value and its derivative at the same point.
template <class T, int W>
struct value_and_derivative {
  pack<T, W> value, derivative;
};

/// A(x) and A'(x). If the caller does not use one of them, the compiler removes its computation. The derivative of ReLU
/// at 0 is 0.
template <activation A, class T, int W>
TCNCA_HOST_DEVICE value_and_derivative<T, W> activate(pack<T, W> x) {
  auto const constant = [](double c) TCNCA_INLINE { return broadcast<W>(T(c)); };
  auto const zero = constant(0), one = constant(1), half = constant(0.5);
  if constexpr (A == activation::none) {
    return {x, one};
  } else if constexpr (A == activation::relu) {
    return {max_zero(x), select_positive(x, one, zero)};
  } else if constexpr (A == activation::silu) {
    auto const s = detail::sigmoid_for_product(x);
    auto const y = x * s;
    return {y, fma(y, one - s, s)};  // s + x s (1 - s)
  } else if constexpr (A == activation::gelu_erf) {
    auto const phi = fma(half, detail::erf(x * constant(0.70710678118654752)), half);
    auto const density = detail::exp(x * x * constant(-0.5)) * constant(0.39894228040143268);
    return {x * phi, fma(x, density, phi)};
  } else if constexpr (A == activation::gelu_tanh) {
    auto const c = constant(0.79788456080286536), cubic = constant(0.044715);
    auto const t = detail::tanh(c * fma(x * x * x, cubic, x));
    auto const gate = fma(half, t, half);
    auto const inner = c * fma(x * x, constant(3 * 0.044715), one);
    return {x * gate, fma(half * x * (one - t * t), inner, gate)};
  } else {
    auto const t = detail::tanh(x);
    return {t, one - t * t};
  }
}

}  // namespace tcnca

#if defined(__clang__) && !defined(__CUDACC__)
#pragma float_control(pop)
#endif
