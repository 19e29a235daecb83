// Online softmax (Milakov and Gimelshein, arXiv 1805.02867): the weights exp(score - maximum) of a row whose scores
// arrive block by block. A row keeps the maximum and the sum of the weights so far. When a block raises the maximum,
// the sum and the outputs so far are rescaled. Every function is called by one thread, for one row (a number) or for
// one row per lane (a pack); none synchronizes. Non-finite scores: -infinity has weight 0, also in a row of nothing
// else; +infinity and NaN make the row's sum NaN.
#pragma once
#include "../arch/mma.hpp"
#include "../core/tensor.hpp"
#include "activation.hpp"
#include "pack.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// 2^x; 0 where the result is not a normal number. On a GPU to 2 units in the last place.
TCNCA_HOST_DEVICE float exp2_or_zero(float x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return detail::exp2_or_zero(x);
#else
  return x < -126.f ? 0.f : __builtin_exp2f(x);
#endif
}

namespace detail {

template <class T>
TCNCA_HOST_DEVICE T infinity() {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(0x7f800000u);
  } else {
    return __longlong_as_double(0x7ff0000000000000ll);
  }
#else
  if constexpr (sizeof(T) == 4) {
    return no_contract(bits_as<float>(0x7f800000u));
  } else {
    return no_contract(bits_as<double>(0x7ff0000000000000ull));
  }
#endif
}
template <class T>
TCNCA_HOST_DEVICE bool is_minus_infinity(T x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return x == -infinity<T>();
#else
  using bits = typename bits_of<T>::type;
  return opaque_bits<bits>(x) == opaque_bits<bits>(-infinity<T>());
#endif
}

/// The larger; of a NaN and a number, the number.
TCNCA_HOST_DEVICE float max_or_number(float a, float b) {
#if defined(__CUDACC__)
  return ::fmaxf(a, b);
#else
  return __builtin_fmaxf(a, b);
#endif
}

/// e^x, 0 where the result is not a normal number, as 2^(x log2 e): on a GPU one multiplication and one ex2.
TCNCA_HOST_DEVICE float exp_or_zero(float x) { return tcnca::exp2_or_zero(x * 1.44269504f); }

/// What is subtracted from the scores of a row: their maximum, or any finite number if the maximum is -infinity, where
/// the difference would be NaN.
template <class T>
TCNCA_HOST_DEVICE T finite_maximum(T maximum) {
  return is_minus_infinity(maximum) ? T(0) : maximum;
}
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> finite_maximum(pack<T, W> maximum) {
  constexpr T lowest = sizeof(T) == 4 ? T(-3.4028234663852886e38) : T(-1.7976931348623157e308);
  return max_or_second(maximum, broadcast<W>(lowest));
}

/// The factor that normalizes the outputs of a row: 1 / sum; 0 for a row without weights.
template <class T>
TCNCA_HOST_DEVICE T inverse_or_zero(T sum) {
  return is_zero(sum) ? T(0) : T(1) / sum;
}
/// Outputs of one row times its factor. A factor of 0 gives 0 even where an output is infinite or NaN.
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> normalized(pack<T, W> output, T factor) {
  return is_zero(factor) ? broadcast<W>(T(0)) : output * broadcast<W>(factor);
}

/// Running statistics of a row. X: a number, or a pack with a row in each lane.
template <class X>
struct softmax_row {
  X maximum, sum;
  X subtrahend = {};  // finite_maximum(maximum), valid after rescale()

  /// Sets the maximum over the scores so far, the next block included. Returns the factor of what was accumulated
  /// before; the sum has it already.
  TCNCA_HOST_DEVICE X rescale(X new_maximum) {
    subtrahend = finite_maximum(new_maximum);
    X const factor = exp_or_zero(maximum - subtrahend);
    maximum = new_maximum, sum = sum * factor;
    return factor;
  }
  /// The weight of a score that is not above the maximum.
  TCNCA_HOST_DEVICE X weight(X score) const { return exp_or_zero(score - subtrahend); }
};

template <class T>
TCNCA_HOST_DEVICE T logarithm(T x) {
#if defined(__CUDACC__)
  return ::log(x);
#else
  return std::log(x);
#endif
}

/// Stores the statistics of a query: the maximum of its scores, and the logarithm of `sum`, the sum of exp(score -
/// maximum). They are kept apart because adding the logarithm to a large maximum would round it away.
template <class A>
TCNCA_HOST_DEVICE void store_lse(tensor_view<A, 4> const& lse, index_t batch, index_t head, index_t t, A maximum,
                                 A sum) {
  *lse.at(batch, head, t, 0) = is_zero(sum) ? -infinity<A>() : maximum;
  *lse.at(batch, head, t, 1) = is_zero(sum) ? A(0) : logarithm(sum);
}

}  // namespace detail

}  // namespace tcnca
