// Products of pairs of bf16 with fp32 sums: VDPBF16PS (Intel SDM, AVX512-BF16).
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Whether add_bf16_products is one instruction for vectors of 64 bytes.
inline constexpr bool has_bf16_products =
#if defined(__AVX512BF16__) && !defined(__CUDACC__)
    true;
#else
    false;
#endif

/// Whether that is faster than two fma of fp32. Golden Cove and later, the processors with AVX512-FP16, execute one
/// such instruction in the time of four fma (measured on Emerald Rapids): half the rate of fp32.
inline constexpr bool has_fast_bf16_products =
#if defined(__AVX512FP16__)
    false;
#else
    has_bf16_products;
#endif

/// A vector for builtins whose parameter types differ between compilers and their versions.
template <class V>
struct any_vector {
  V v;
  template <class To>
  TCNCA_HOST_DEVICE operator To() const {
    return __builtin_bit_cast(To, v);
  }
};

/// In each 32-bit lane the products of both halves of a and b, added to c: the upper half first, each rounded once.
/// Subnormal operands and results are zero, whatever the floating-point mode is. Words: a vector of 16 uint32.
template <class Floats, class Words>
TCNCA_HOST_DEVICE Floats add_bf16_products([[maybe_unused]] Words a, [[maybe_unused]] Words b, Floats c) {
#if defined(__AVX512BF16__) && !defined(__CUDACC__) && defined(__clang__)
  return __builtin_ia32_dpbf16ps_512(c, any_vector<Words>{a}, any_vector<Words>{b});
#elif defined(__AVX512BF16__) && !defined(__CUDACC__)
  return __builtin_ia32_dpbf16ps_v16sf(c, any_vector<Words>{a}, any_vector<Words>{b});
#else
  return c;
#endif
}

}  // namespace tcnca::inline TCNCA_TARGET::detail
