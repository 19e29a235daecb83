// Products of small matrices in fast memory: a tile of M rows and N packs of the result in one thread's registers.
#pragma once
#include "pack.hpp"
#include "unroll.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// M rows of N packs of sums of products, sum(m, n) = sum_k a(m, k) b(k, n), each taken in rising k, always, so that a sum does not depend on
/// the tile it is in. a(m, k) stands at a[m ARow + k AColumn], row k of b at b + k BRow: constants, so that a tile's rows are
/// displacements from one pointer.
template <int M, int N, class A, int W>
struct matrix_tile {
  static constexpr int rows = M, columns = N * W;
  using value = pack<A, W>;

  detail::array<detail::array<value, N>, M> sum;

  TCNCA_HOST_DEVICE void clear() {
    unroll<0, M>([&](auto m)
                     TCNCA_INLINE { unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = broadcast<W>(A(0)); }); });
  }
  /// Row m from `from` + m row, times scale(m).
  template <class Scale>
  TCNCA_HOST_DEVICE void load(A const* from, index_t row, Scale scale) {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n)
                       TCNCA_INLINE { sum[m][n] = scale(m, tcnca::load<W>(from + int(m) * row + int(n) * W)); });
    });
  }
  TCNCA_HOST_DEVICE void store(A* to, index_t row) const {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n) TCNCA_INLINE { tcnca::store<W>(to + int(m) * row + int(n) * W, sum[m][n]); });
    });
  }
  /// The same where only the first `present` rows exist; the others are zero, and not written.
  TCNCA_HOST_DEVICE void load_some(A const* from, index_t row, int present) {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n) TCNCA_INLINE {
        sum[m][n] = m < present ? tcnca::load<W>(from + int(m) * row + int(n) * W) : broadcast<W>(A(0));
      });
    });
  }
  TCNCA_HOST_DEVICE void store_some(A* to, index_t row, int present) const {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      if (m < present)
        unroll<0, N>([&](auto n) TCNCA_INLINE { tcnca::store<W>(to + int(m) * row + int(n) * W, sum[m][n]); });
    });
  }

  /// Adds the terms first <= k < last.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add(A const* a, A const* b, int first, int last) {
    a += index_t(first) * AColumn, b += index_t(first) * BRow;
    for (int k = first; k < last; k++, a += AColumn, b += BRow) {
      detail::array<value, N> in;
      unroll<0, N>([&](auto n) TCNCA_INLINE { in[n] = tcnca::load<W>(b + int(n) * W); });
      unroll<0, M>([&](auto m) TCNCA_INLINE {
        value const factor = broadcast<W>(a[int(m) * ARow]);
        unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = fma(factor, in[n], sum[m][n]); });
      });
    }
  }
  /// The same, and row m takes only the k <= diagonal + m: what is masked is not multiplied by zero but left out, so that an infinity or NaN
  /// there does not come through.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_below(A const* a, A const* b, int last, int diagonal) {
    int const full = max_of(0, min_of(last, diagonal + 1));
    add<ARow, AColumn, BRow>(a, b, 0, full);
    add_some<ARow, AColumn, BRow>(a, b, full, min_of(last, diagonal + M),
                                  [&](int m, int k) TCNCA_INLINE { return k <= diagonal + m; });
  }
  /// And here only the k >= diagonal + m.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_above(A const* a, A const* b, int last, int diagonal) {
    int const full = max_of(0, min_of(last, diagonal + M - 1));
    add_some<ARow, AColumn, BRow>(a, b, max_of(0, diagonal), full,
                                  [&](int m, int k) TCNCA_INLINE { return k >= diagonal + m; });
    add<ARow, AColumn, BRow>(a, b, full, last);
  }

 private:
  template <int ARow, int AColumn, int BRow, class Take>
  TCNCA_HOST_DEVICE void add_some(A const* a, A const* b, int first, int last, Take take) {
    for (int k = first; k < last; k++)
      unroll<0, M>([&](auto m) TCNCA_INLINE {
        if (!take(m, k)) return;
        value const factor = broadcast<W>(a[int(m) * ARow + index_t(k) * AColumn]);
        unroll<0, N>([&](auto n) TCNCA_INLINE {
          sum[m][n] = fma(factor, tcnca::load<W>(b + index_t(k) * BRow + int(n) * W), sum[m][n]);
        });
      });
  }
};

/// Calls f(row, column) for the corner of every tile of a rows x columns result, each by one thread.
template <class Tile, class Group, class F>
TCNCA_HOST_DEVICE void for_each_tile(Group group, int rows, int columns, F f) {
  int const down = divide_up(rows, Tile::rows), across = divide_up(columns, Tile::columns);
  for (int i = group.rank(); i < down * across; i += group.size()) f(i % down * Tile::rows, i / down * Tile::columns);
}

}  // namespace tcnca
