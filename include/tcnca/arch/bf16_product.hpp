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

/// Whether that instruction multiplies faster than fp32 fma. Per cycle, Zen 4 and later execute as many of it as of
/// fma. Golden Cove and later, which are the processors with AVX512-FP16, execute 1 in the time of 4: half the rate of
/// fp32 (measured on Emerald Rapids).
inline constexpr bool has_fast_bf16_products =
#if defined(__AVX512FP16__)
    false;
#else
    has_bf16_products;
#endif

#if defined(__AVX512BF16__) && !defined(__CUDACC__)
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
TCNCA_HOST_DEVICE Floats add_bf16_products(Words a, Words b, Floats c) {
#if defined(__clang__)
  return __builtin_ia32_dpbf16ps_512(c, any_vector<Words>{a}, any_vector<Words>{b});
#else
  return __builtin_ia32_dpbf16ps_v16sf(c, any_vector<Words>{a}, any_vector<Words>{b});
#endif
}
#endif

}  // namespace tcnca::inline TCNCA_TARGET::detail
