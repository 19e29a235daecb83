// Pairs of bf16: two neighbouring terms of a sum of products in 32 bits, the first in the lower half. Operands of
// matrix_tile.
#pragma once
#include "../arch/bf16_product.hpp"
#include "pack.hpp"

namespace tcnca::inline TCNCA_TARGET {

struct bf16_pair {
  uint32 bits;
};

/// W pairs at p.
template <int W>
TCNCA_HOST_DEVICE pack<uint32, W> load(bf16_pair const* p) {
  pack<uint32, W> a;
  __builtin_memcpy(&a.v, p, sizeof(a.v));
  return a;
}
template <int W>
TCNCA_HOST_DEVICE void store(bf16_pair* p, pack<uint32, W> a) {
  __builtin_memcpy(p, &a.v, sizeof(a.v));
}
template <int W>
TCNCA_HOST_DEVICE pack<uint32, W> broadcast(bf16_pair x) {
  return tcnca::broadcast<W>(x.bits);
}

/// The pairs (low, high) of numbers rounded to bf16.
template <int W>
TCNCA_HOST_DEVICE pack<uint32, W> make_pairs(pack<float, W> low, pack<float, W> high) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  pack<uint32, W> pairs;
  TCNCA_UNROLL
  for (int i = 0; i < W; i++)
    pairs.v[i] = from_accumulate<bf16>(low.v[i]).bits | uint32(from_accumulate<bf16>(high.v[i]).bits) << 16;
  return pairs;
#else
  using words = decltype(pack<uint32, W>::v);
  return {detail::narrow_to_upper_half(detail::bits_as<words>(low.v)) >> 16 |
          (detail::narrow_to_upper_half(detail::bits_as<words>(high.v)) & 0xffff0000u)};
#endif
}
/// The same for numbers that bf16 represents exactly.
template <int W>
TCNCA_HOST_DEVICE pack<uint32, W> make_pairs_of_exact(pack<float, W> low, pack<float, W> high) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return make_pairs(low, high);
#else
  using words = decltype(pack<uint32, W>::v);
  return {detail::bits_as<words>(low.v) >> 16 | detail::bits_as<words>(high.v)};
#endif
}

/// The pairs with 0 in place of a half that is not selected.
template <int W>
TCNCA_HOST_DEVICE pack<uint32, W> selected_halves(pack<uint32, W> pairs, bool low, bool high) {
  uint32 const mask = (low ? 0xffffu : 0u) | (high ? 0xffff0000u : 0u);
  TCNCA_UNROLL
  for (int i = 0; i < W; i++) pairs.set_lane(i, pairs.lane(i) & mask);
  return pairs;
}

/// c + a.high b.high + a.low b.low in this order, each term rounded once if the target has a fused multiply-add. With
/// has_bf16_products, subnormal operands and sums are zero.
template <int W>
TCNCA_HOST_DEVICE pack<float, W> fma(pack<uint32, W> a, pack<uint32, W> b, pack<float, W> c) {
#if defined(__AVX512BF16__) && !defined(__CUDACC__)
  if constexpr (sizeof(c.v) == 64) {
    return {detail::add_bf16_products(a.v, b.v, c.v)};
  } else
#endif
  {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) {
      c.v[i] = ::fma(detail::widen_high<bf16>(a.v[i]), detail::widen_high<bf16>(b.v[i]), c.v[i]);
      c.v[i] = ::fma(detail::widen_low<bf16>(a.v[i]), detail::widen_low<bf16>(b.v[i]), c.v[i]);
    }
    return c;
#else
    using value = pack<float, W>;
    using floats = decltype(c.v);
    value const a_low{detail::bits_as<floats>(a.v << 16)}, b_low{detail::bits_as<floats>(b.v << 16)};
    value const a_high{detail::bits_as<floats>(a.v & 0xffff0000u)}, b_high{detail::bits_as<floats>(b.v & 0xffff0000u)};
    return fma(a_low, b_low, fma(a_high, b_high, c));
#endif
  }
}

}  // namespace tcnca
