// Saturating arithmetic for products and sums of extents, strides and bytes.
#pragma once
#include "config.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The largest value of index_t or size_t.
template <class Integer>
inline constexpr Integer largest = static_cast<Integer>(Integer(-1) > Integer(0) ? ~uint64(0) : ~uint64(0) >> 1);

/// a * b, or the largest value if the product does not fit. a, b >= 0.
template <class Integer>
TCNCA_HOST_DEVICE constexpr Integer saturating_multiply(Integer a, Integer b) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return b > 0 && a > largest<Integer> / b ? largest<Integer> : a * b;
#else
  Integer product{};
  return __builtin_mul_overflow(a, b, &product) ? largest<Integer> : product;
#endif
}

/// a + b, or the largest value if the sum does not fit. a, b >= 0.
template <class Integer>
TCNCA_HOST_DEVICE constexpr Integer saturating_add(Integer a, Integer b) {
  return a > largest<Integer> - b ? largest<Integer> : a + b;
}

}  // namespace tcnca::inline TCNCA_TARGET::detail
