// Conversions between the element type and fp32, as frameworks do them: bf16 is rounded to nearest even.
#pragma once
#include <tcnca/core/numeric.hpp>

namespace tcnca::bench {

TCNCA_HOST_DEVICE float to_float(float v) { return v; }
TCNCA_HOST_DEVICE float to_float(double v) { return static_cast<float>(v); }
TCNCA_HOST_DEVICE float to_float(bf16 v) { return __builtin_bit_cast(float, static_cast<unsigned>(v.bits) << 16); }

template <class T>
TCNCA_HOST_DEVICE T from_float(float v) {
  if constexpr (__is_same(T, bf16)) {
    auto const bits = __builtin_bit_cast(unsigned, v);
    return {static_cast<uint16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
  } else {
    return static_cast<T>(v);
  }
}

/// to[i] = from[i]
template <class T>
void widen(float* __restrict to, T const* __restrict from, index_t count) {
  for (index_t i = 0; i < count; i++) to[i] = to_float(from[i]);
}
/// to[i] = scale * from[i]
template <class T>
void narrow(T* __restrict to, float const* __restrict from, float scale, index_t count) {
  for (index_t i = 0; i < count; i++) to[i] = from_float<T>(scale * from[i]);
}

}  // namespace tcnca::bench
