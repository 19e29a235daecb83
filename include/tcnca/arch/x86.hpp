// Single instructions that GCC does not find by itself. Through its builtins: <immintrin.h> costs more to include than all of tcnca.
#pragma once
#include "../core/config.hpp"

namespace tcnca::detail {

#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && defined(__SSE2__)
/// max(0, x) in each lane, NaN where x is one, for a vector of the machine's own size; other vectors take the slow way.
template <class V>
TCNCA_HOST_DEVICE V max_zero(V x) {
  V const zero{};
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64 && sizeof(x[0]) == 4) return __builtin_ia32_maxps512_mask(zero, x, zero, 0xffff, 4);
  else if constexpr (sizeof(V) == 64) return __builtin_ia32_maxpd512_mask(zero, x, zero, 0xff, 4);
  else
#endif
#if defined(__AVX__)
  if constexpr (sizeof(V) == 32 && sizeof(x[0]) == 4) return __builtin_ia32_maxps256(zero, x);
  else if constexpr (sizeof(V) == 32) return __builtin_ia32_maxpd256(zero, x);
  else
#endif
  if constexpr (sizeof(V) == 16 && sizeof(x[0]) == 4) return __builtin_ia32_maxps(zero, x);
  else if constexpr (sizeof(V) == 16) return __builtin_ia32_maxpd(zero, x);
  else return x < zero ? zero : x;
}
#else
template <class V>
TCNCA_HOST_DEVICE V max_zero(V x) {
  V const zero{};
  return x < zero ? zero : x;
}
#endif

}  // namespace tcnca::detail
