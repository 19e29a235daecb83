// Products of small matrices in shared memory (or cache): one thread holds a tile of M rows of N packs of the result in
// registers.
#pragma once
#include "pack.hpp"
#include "unroll.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A register tile of one thread: sum(m, n) = sum over k of a(m, k) b(k, n), with W neighbouring n in a pack. Terms are
/// added in ascending k, so that a sum does not depend on the tile it is in. a(m, k) is a[m ARow + k AColumn], row k of
/// b begins at b + k BRow. The strides are compile-time constants, so that the rows of a tile are displacements from
/// one pointer. Lanes: threads next to each other whose tiles are in the same rows; their packs alternate, so that
/// together they access whole lines of shared memory.
template <int M, int N, class A, int W, int Lanes = 1>
struct matrix_tile {
  static constexpr int rows = M, columns = N * W, lanes = Lanes;
  static constexpr int pack_stride = Lanes * W;             // columns from pack to pack
  static constexpr int extent = (N - 1) * pack_stride + W;  // from the first column to the end of the last
  using value = pack<A, W>;

  detail::array<detail::array<value, N>, M> sum;

  TCNCA_HOST_DEVICE void clear() {
    unroll<0, M>([&](auto m)
                     TCNCA_INLINE { unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = broadcast<W>(A(0)); }); });
  }
  /// Loads row m from `from` + m stride and applies scale(m, pack).
  template <class Scale>
  TCNCA_HOST_DEVICE void load(A const* from, index_t stride, Scale scale) {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n) TCNCA_INLINE {
        sum[m][n] = scale(m, tcnca::load<W>(from + int(m) * stride + int(n) * pack_stride));
      });
    });
  }
  TCNCA_HOST_DEVICE void store(A* to, index_t stride) const {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n)
                       TCNCA_INLINE { tcnca::store<W>(to + int(m) * stride + int(n) * pack_stride, sum[m][n]); });
    });
  }
  /// Load and store where only the first `present` rows exist and, with Lanes, the packs that begin before `width`: the
  /// others are zero, and are not written.
  TCNCA_HOST_DEVICE void load_some(A const* from, index_t stride, int present, int width = extent) {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      unroll<0, N>([&](auto n) TCNCA_INLINE {
        bool const exists = m < present && (Lanes == 1 || int(n) * pack_stride < width);
        sum[m][n] = exists ? tcnca::load<W>(from + int(m) * stride + int(n) * pack_stride) : broadcast<W>(A(0));
      });
    });
  }
  TCNCA_HOST_DEVICE void store_some(A* to, index_t stride, int present, int width = extent) const {
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      if (m < present)
        unroll<0, N>([&](auto n) TCNCA_INLINE {
          if (Lanes == 1 || int(n) * pack_stride < width)
            tcnca::store<W>(to + int(m) * stride + int(n) * pack_stride, sum[m][n]);
        });
    });
  }

  /// Adds the terms first <= k < last.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add(A const* a, A const* b, int first, int last) {
    if constexpr (Lanes > 1) {
      add_packs<ARow, AColumn, BRow>(a, b, first, last);
    } else {
      a += index_t(first) * AColumn, b += index_t(first) * BRow;
      for (int k = first; k < last; k++, a += AColumn, b += BRow) {
        detail::array<value, N> in;
        unroll<0, N>([&](auto n) TCNCA_INLINE { in[n] = tcnca::load<W>(b + int(n) * pack_stride); });
        unroll<0, M>([&](auto m) TCNCA_INLINE {
          value const factor = broadcast<W>(a[int(m) * ARow]);
          unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = fma(factor, in[n], sum[m][n]); });
        });
      }
    }
  }
  /// Adds to row m the terms k < last with k <= diagonal + m. Masked terms are left out, not multiplied by 0, so that
  /// an infinite or NaN b does not propagate.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_below(A const* a, A const* b, int last, int diagonal) {
    int const full = max_of(0, min_of(last, diagonal + 1));
    add<ARow, AColumn, BRow>(a, b, 0, full);
    add_masked<ARow, AColumn, BRow>(a, b, full, min_of(last, diagonal + M),
                                    [&](int m, int k) TCNCA_INLINE { return k <= diagonal + m; });
  }
  /// Adds to row m the terms k < last with k >= diagonal + m.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_above(A const* a, A const* b, int last, int diagonal) {
    int const full = max_of(0, min_of(last, diagonal + M - 1));
    add_masked<ARow, AColumn, BRow>(a, b, max_of(0, diagonal), full,
                                    [&](int m, int k) TCNCA_INLINE { return k >= diagonal + m; });
    add<ARow, AColumn, BRow>(a, b, full, last);
  }
  /// Adds to row m the terms k < last with first + m <= k <= diagonal + m.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_band(A const* a, A const* b, int last, int first, int diagonal) {
    auto const in_band = [&](int m, int k) TCNCA_INLINE { return first + m <= k && k <= diagonal + m; };
    int const begin = max_of(0, first), end = max_of(begin, min_of(last, diagonal + M));
    int const full = min_of(max_of(begin, first + M - 1), end), full_end = max_of(full, min_of(last, diagonal + 1));
    add_masked<ARow, AColumn, BRow>(a, b, begin, full, in_band);
    add<ARow, AColumn, BRow>(a, b, full, full_end);
    add_masked<ARow, AColumn, BRow>(a, b, full_end, end, in_band);
  }

 private:
  /// Adds the term of one k: the elements of a, one per row, times the packs at b.
  TCNCA_HOST_DEVICE void add_term(detail::array<A, M> const& a, A const* b) {
    detail::array<value, N> in;
    unroll<0, N>([&](auto n) TCNCA_INLINE { in[n] = tcnca::load<W>(b + int(n) * pack_stride); });
    unroll<0, M>([&](auto m) TCNCA_INLINE {
      value const factor = broadcast<W>(a[m]);
      unroll<0, N>([&](auto n) TCNCA_INLINE { sum[m][n] = fma(factor, in[n], sum[m][n]); });
    });
  }
  /// add() with loads of whole packs of a, which on a GPU are aligned: along its rows, or else along k.
  template <int ARow, int AColumn, int BRow>
  TCNCA_HOST_DEVICE void add_packs(A const* a, A const* b, int first, int last) {
    static_assert(ARow == 1 || AColumn == 1);
    constexpr int together = 4;  // terms whose loads may precede their products
    if constexpr (ARow == 1) {
      auto const term = [&](int k) TCNCA_INLINE {
        detail::array<A, M> factors;
        unroll<0, M / W>([&](auto m) TCNCA_INLINE {
          value const p = tcnca::load<W>(a + k * AColumn + int(m) * W);
          unroll<0, W>([&](auto w) TCNCA_INLINE { factors[int(m) * W + int(w)] = p.lane(w); });
        });
        add_term(factors, b + k * BRow);
      };
      int k = first;
      for (; k + together <= last; k += together) unroll<0, together>([&](auto n) TCNCA_INLINE { term(k + int(n)); });
      for (; k < last; k++) term(k);
    } else {
      auto const term = [&](int k) TCNCA_INLINE {
        detail::array<A, M> factors;
        unroll<0, M>([&](auto m) TCNCA_INLINE { factors[m] = a[int(m) * ARow + k]; });
        add_term(factors, b + k * BRow);
      };
      int k = first;
      for (; k < last && k % W != 0; k++) term(k);
      for (; k + W <= last; k += W) {
        detail::array<value, M> packs;
        unroll<0, M>([&](auto m) TCNCA_INLINE { packs[m] = tcnca::load<W>(a + int(m) * ARow + k); });
        unroll<0, W>([&](auto w) TCNCA_INLINE {
          detail::array<A, M> factors;
          unroll<0, M>([&](auto m) TCNCA_INLINE { factors[m] = packs[m].lane(w); });
          add_term(factors, b + (k + int(w)) * BRow);
        });
      }
      for (; k < last; k++) term(k);
    }
  }

  template <int ARow, int AColumn, int BRow, class IncludeTerm>
  TCNCA_HOST_DEVICE void add_masked(A const* a, A const* b, int first, int last, IncludeTerm include_term) {
    for (int k = first; k < last; k++)
      unroll<0, M>([&](auto m) TCNCA_INLINE {
        if (!include_term(m, k)) return;
        value const factor = broadcast<W>(a[int(m) * ARow + index_t(k) * AColumn]);
        unroll<0, N>([&](auto n) TCNCA_INLINE {
          sum[m][n] = fma(factor, tcnca::load<W>(b + index_t(k) * BRow + int(n) * pack_stride), sum[m][n]);
        });
      });
  }
};

/// Calls f(row, column) for the corner of each tile of a rows x columns result. Called by all threads; each tile goes
/// to one thread.
template <class Tile, class Group, class F>
TCNCA_HOST_DEVICE void for_each_tile(Group group, int rows, int columns, F f) {
  int const tile_rows = divide_up(rows, Tile::rows), tile_columns = divide_up(columns, Tile::columns);
  for (int i = group.rank(); i < tile_rows * tile_columns; i += group.size())
    f(i % tile_rows * Tile::rows, i / tile_rows * Tile::columns);
}

/// The corner of a tile.
struct tile_place {
  int row, column;
};

/// The tile of this thread if each thread of the group has one tile of a Rows x Columns result. Threads next to each
/// other share rows, `lanes` at a time.
template <class Tile, int Rows, int Columns, class Group>
TCNCA_HOST_DEVICE tile_place place_of_tile(Group group) {
  constexpr int lanes = Tile::lanes, tile_rows = Rows / Tile::rows;
  static_assert(Rows % Tile::rows == 0 && Columns % (lanes * Tile::columns) == 0);
  static_assert(Rows * Columns == Group::size() * Tile::rows * Tile::columns);
  int const rank = group.rank(), strip = rank / lanes / tile_rows;
  return {rank / lanes % tile_rows * Tile::rows,
          strip * lanes * Tile::columns + rank % lanes * Tile::pack_stride / lanes};
}

}  // namespace tcnca
