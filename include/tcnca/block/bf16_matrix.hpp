// Products of small matrices of bf16 on a CPU, two terms per lane and instruction: matrix_tile with operands that are
// pairs of neighbouring terms. nvcc does not compile them.
#pragma once
#include "../arch/bf16_product.hpp"
#include "matrix.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Two neighbouring terms of a sum of products, the first in the lower half.
struct bf16_pair {
  uint32 bits;
};

#if defined(__CUDACC__)
inline constexpr bool has_bf16_pairs = false;
template <int M, int N, int W>
using bf16_pair_tile = matrix_tile<M, N, float, W>;
#else
inline constexpr bool has_bf16_pairs = true;

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

/// The pairs (low, high) of numbers rounded to bf16.
template <int W>
TCNCA_HOST_DEVICE pack<uint32, W> make_pairs(pack<float, W> low, pack<float, W> high) {
  using words = decltype(pack<uint32, W>::v);
  return {detail::narrow_to_upper_half(detail::bits_as<words>(low.v)) >> 16 |
          (detail::narrow_to_upper_half(detail::bits_as<words>(high.v)) & 0xffff0000u)};
}
/// The same for numbers that are bf16.
template <int W>
TCNCA_HOST_DEVICE pack<uint32, W> make_exact_pairs(pack<float, W> low, pack<float, W> high) {
  using words = decltype(pack<uint32, W>::v);
  return {detail::bits_as<words>(low.v) >> 16 | detail::bits_as<words>(high.v)};
}

/// c + a.high b.high + a.low b.low in this order, each term rounded once if the target has a fused multiply-add. Where
/// it is one instruction, subnormal elements and sums are zero.
template <int W>
TCNCA_HOST_DEVICE pack<float, W> fma(pack<uint32, W> a, pack<uint32, W> b, pack<float, W> c) {
  if constexpr (detail::has_bf16_products && sizeof(c.v) == 64) {
    return {detail::add_bf16_products(a.v, b.v, c.v)};
  } else {
    using floats = decltype(c.v);
    pack<float, W> const a_low{detail::bits_as<floats>(a.v << 16)}, b_low{detail::bits_as<floats>(b.v << 16)},
        a_high{detail::bits_as<floats>(a.v & 0xffff0000u)}, b_high{detail::bits_as<floats>(b.v & 0xffff0000u)};
    return fma(a_low, b_low, fma(a_high, b_high, c));
  }
}

/// matrix_tile for operands in pairs: k in a(m, k) and b(k, n) is the number of a pair, but the arguments of add() and
/// its variants count terms. `first` of add() is even. Where a pair has a masked term or one from `last` on, a must be 0
/// there, b may be anything. A sum does not depend on the tile it is in.
template <int M, int N, int W>
struct bf16_pair_tile : matrix_tile<M, N, float, W> {
  using matrix_tile<M, N, float, W>::sum;

  /// Multiplies row m, column n by factor[m], factor[n].
  TCNCA_HOST_DEVICE void scale_rows(float const* factor) {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = sum[m][n] * broadcast<W>(factor[m]); });
    });
  }
  TCNCA_HOST_DEVICE void scale_columns(float const* factor) {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = sum[m][n] * tcnca::load<W>(factor + int(n) * W); });
    });
  }

  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add(bf16_pair const* a, bf16_pair const* b, int first, int last) {
    add_pairs<ARow, AColumn, BRow>(a, b, first / 2, last / 2);
    add_masked<ARow, AColumn, BRow>(a, b, last / 2, divide_up(last, 2),
                                    [&](int, int term) TCNCA_INLINE { return term < last; });
  }
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_below(bf16_pair const* a, bf16_pair const* b, int last, int diagonal) {
    add_band<ARow, AColumn, BRow>(a, b, last, -M, diagonal);
  }
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_above(bf16_pair const* a, bf16_pair const* b, int last, int diagonal) {
    add_band<ARow, AColumn, BRow>(a, b, last, diagonal, last);
  }
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_band(bf16_pair const* a, bf16_pair const* b, int last, int first, int diagonal) {
    auto const in_band = [&](int m, int term)
                             TCNCA_INLINE { return first + m <= term && term <= diagonal + m && term < last; };
    int const begin = max_of(0, first) / 2, end = max_of(begin, divide_up(max_of(0, min_of(last, diagonal + M)), 2));
    int const full = min_of(max_of(begin, divide_up(max_of(0, first + M - 1), 2)), end);
    int const full_end = max_of(full, max_of(0, min_of(last, diagonal + 1)) / 2);
    add_masked<ARow, AColumn, BRow>(a, b, begin, full, in_band);
    add_pairs<ARow, AColumn, BRow>(a, b, full, full_end);
    add_masked<ARow, AColumn, BRow>(a, b, full_end, end, in_band);
  }

 private:
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_pairs(bf16_pair const* a, bf16_pair const* b, int first, int last) {
    a += index_t(first) * AColumn, b += index_t(first) * BRow;
    for (int k = first; k < last; k++, a += AColumn, b += BRow) {
      detail::array<pack<uint32, W>, N> in;
      unroll<0, N>([&](auto n) TCNCA_INLINE { in[n] = load<W>(b + int(n) * W); });
      unroll<0, M>([&](auto m) TCNCA_INLINE {
        auto const factor = broadcast<W>(a[int(m) * ARow].bits);
        unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = fma(factor, in[n], sum[m][n]); });
      });
    }
  }
  /// Adds the pairs [begin, end), with 0 in place of an element of b where the term is masked, so that an infinite or
  /// NaN one does not propagate.
  template <int ARow, int AColumn, int BRow, class IncludeTerm>
  TCNCA_HOST_DEVICE void add_masked(bf16_pair const* a, bf16_pair const* b, int begin, int end,
                                    IncludeTerm include_term) {
    for (int k = begin; k < end; k++)
      unroll<0, M>([&](auto m) TCNCA_INLINE {
        uint32 const mask = (include_term(m, 2 * k) ? 0xffffu : 0u) | (include_term(m, 2 * k + 1) ? 0xffff0000u : 0u);
        if (mask == 0) return;
        auto const factor = broadcast<W>(a[int(m) * ARow + index_t(k) * AColumn].bits);
        unroll<0, N>([&](auto n) TCNCA_INLINE {
          pack<uint32, W> const in{load<W>(b + index_t(k) * BRow + int(n) * W).v & broadcast<W>(mask).v};
          sum[m][n] = fma(factor, in, sum[m][n]);
        });
      });
  }
};
#endif

}  // namespace tcnca
