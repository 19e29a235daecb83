// Transposition of a square of packs in registers.
#pragma once
#include "pack.hpp"
#include "unroll.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)

/// Moves lane j of row i to lane i of row j.
template <class A, int W>
TCNCA_HOST_DEVICE void transpose(array<pack<A, W>, W>& rows) {
  TCNCA_UNROLL
  for (int i = 0; i < W; i++) {
    TCNCA_UNROLL
    for (int j = i + 1; j < W; j++) {
      A const x = rows[i].v[j];
      rows[i].v[j] = rows[j].v[i], rows[j].v[i] = x;
    }
  }
}

#else

/// Shuffle indices for two rows of W lanes that exchange halves: the source of lane i of the first (odd = 0) or second
/// (odd = 1) result, where lanes W to 2 W - 1 are those of the second row. `blocks` exchanges 16-byte blocks, `pairs`
/// pairs of lanes within a block, `lanes` single lanes within a block.
template <int W, int Block>
struct exchange {
  TCNCA_HOST_DEVICE static constexpr int blocks(int i, int odd) {
    constexpr int n = W / Block;
    int const k = i / Block;
    return (k < n / 2 ? 2 * k + odd : W / Block + 2 * (k - n / 2) + odd) * Block + i % Block;
  }
  TCNCA_HOST_DEVICE static constexpr int pairs(int i, int odd) {
    int const j = i % Block;
    return i - j + (j < 2 ? j + 2 * odd : W + j - 2 + 2 * odd);
  }
  TCNCA_HOST_DEVICE static constexpr int lanes(int i, int odd) {
    int const j = i % Block;
    return i - j + j / 2 + Block / 2 * odd + j % 2 * W;
  }
};

#if defined(__CUDACC__)
// nvcc passes a parameter pack in this builtin to the host compiler without expanding it.
template <int W, int (*Lane)(int, int), class V, int... Indices>
TCNCA_HOST_DEVICE void exchange_rows(V& a, V& b, lane_list<Indices...>) {
  V low = a, high = a;
  for (int i = 0; i < W; i++) {
    int const l = Lane(i, 0), h = Lane(i, 1);
    low[i] = l < W ? a[l] : b[l - W];
    high[i] = h < W ? a[h] : b[h - W];
  }
  a = low, b = high;
}
#else
template <int W, int (*Lane)(int, int), class V, int... Indices>
TCNCA_HOST_DEVICE void exchange_rows(V& a, V& b, lane_list<Indices...>) {
  V const low = __builtin_shufflevector(a, b, Lane(Indices, 0)...);
  b = __builtin_shufflevector(a, b, Lane(Indices, 1)...);
  a = low;
}
#endif

template <int W, int (*Lane)(int, int), int Distance, class A>
TCNCA_HOST_DEVICE void exchange_all(array<pack<A, W>, W>& rows) {
  unroll<0, W / 2>([&](auto i) {
    constexpr int at = int(i) / Distance * 2 * Distance + int(i) % Distance;
    exchange_rows<W, Lane>(rows[at].v, rows[at + Distance].v, typename first_lanes<W>::type{});
  });
}

/// Moves lane j of row i to lane i of row j. For each power of two below W, two shuffles per pair of rows; only the
/// exchange of blocks crosses 16-byte boundaries.
template <class A, int W>
TCNCA_HOST_DEVICE void transpose(array<pack<A, W>, W>& rows) {
  if constexpr (W > 1) {
    constexpr int block = min_of(W, int(16 / sizeof(A)));
    using exchange = detail::exchange<W, block>;
    exchange_all<W, &exchange::lanes, 1>(rows);
    if constexpr (block == 4) {
      exchange_all<W, &exchange::pairs, 2>(rows);
      for (int i = 0; i < W; i += 4) {
        auto const second = rows[i + 1];
        rows[i + 1] = rows[i + 2], rows[i + 2] = second;
      }
    }
    if constexpr (W / block >= 2) { exchange_all<W, &exchange::blocks, block>(rows); }
    if constexpr (W / block >= 4) { exchange_all<W, &exchange::blocks, 2 * block>(rows); }
  }
}

#endif

}  // namespace tcnca::detail

namespace tcnca::inline TCNCA_TARGET {

/// Transposes a square of packs in place, in registers: lane j of rows[i] becomes lane i of rows[j]. W is a power of
/// two.
using detail::transpose;

}  // namespace tcnca
