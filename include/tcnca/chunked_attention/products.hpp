// Products of blocks by a group of many threads. Each thread holds one register tile of the result; the operands pass
// through shared memory in panels of 64 bytes of a row. While a panel is used, the next one is on its way from global
// memory into registers.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// What rows are multiplied by when they are loaded: nothing.
struct unscaled_rows {};

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_products : attention_group<Group, T, Shape, Policy> {
  using base = attention_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tile;
  using base::group, base::in, base::W;
  static constexpr int threads = Group::size();
  static constexpr int depth = 64 / int(sizeof(A));  // terms of a product that a panel holds
  // Rows of a transposed panel are so many elements longer: four packs of two of its rows are then in different banks.
  static constexpr int padding = 4;
  static constexpr int panel_elements = depth * (Policy.query_block + Policy.key_block + 2 * padding);
  static constexpr bool fits(int elements) {
    return size_t(panel_elements + elements) * sizeof(A) <= Policy.shared_memory_bytes;
  }

  /// Adds to tile (row, column) of a Rows x Columns result the sums over d < dim of a(row)[d] b(column)[d]. a, b: the
  /// first element of a row, of any row where the result has none. factor(r): what row r of a, or of b with ScaleB, is
  /// multiplied by. All threads call it. The panel must be free when it is called, and is free when it returns.
  template <int Rows, int Columns, bool ScaleB, class RowA, class RowB, class Factor>
  TCNCA_HOST_DEVICE void multiply_rows(tile& t, tile_place place, bool active, A* panel, int dim, RowA a, RowB b,
                                       Factor factor) const {
    constexpr int a_row = Rows + padding, b_row = Columns + padding;
    constexpr int a_squares = Rows * depth / (W * W), squares = (Rows + Columns) * depth / (W * W);
    constexpr int count = divide_up(squares, threads);
    // A thread transposes squares of W x W elements: number s of a, then of b.
    auto const in_a = [](auto q, int s) TCNCA_INLINE {
      if constexpr ((int(q) + 1) * threads <= a_squares) {
        return true;
      } else {
        return int(q) * threads < a_squares && s < a_squares;
      }
    };
    array<array<T const*, W>, count> source;
    array<array<value, W>, count> next;
    [[maybe_unused]] array<array<A, W>, count> factors;
    array<A*, count> to;
    array<int, count> column;
    unroll<0, count>([&](auto q) TCNCA_INLINE {
      int const s = min_of(group.rank() + int(q) * threads, squares - 1);
      bool const is_a = in_a(q, s);
      square const at = is_a ? square::of(s, Rows) : square::of(s - a_squares, Columns);
      column[q] = at.column;
      to[q] = panel + (is_a ? at.column * a_row : depth * a_row + at.column * b_row) + at.row;
      unroll<0, W>([&](auto w) TCNCA_INLINE {
        source[q][w] = is_a ? a(at.row + int(w)) : b(at.row + int(w));
        if constexpr (!same<Factor, unscaled_rows>) { factors[q][w] = is_a != ScaleB ? factor(at.row + int(w)) : A(1); }
      });
    });
    auto const fetch_packs = [&](int d, auto vectors) TCNCA_INLINE {
      unroll<0, count>([&](auto q) TCNCA_INLINE {
        unroll<0, W>([&](auto w) TCNCA_INLINE {
          next[q][w] = load_pack<decltype(vectors)::value>(source[q][w], d + column[q], d + column[q] < dim);
        });
      });
    };
    auto const fetch = [&](int d) TCNCA_INLINE {
      if (in.vectorizable) fetch_packs(d, constant<1>{});
      else fetch_packs(d, constant<0>{});
    };
    fetch(0);
    for (int d = 0; d < dim; d += depth) {
      unroll<0, count>([&](auto q) TCNCA_INLINE {
        int const s = group.rank() + int(q) * threads;
        if constexpr ((int(q) + 1) * threads > squares) {
          if (s >= squares) return;
        }
        bool const is_a = in_a(q, s);
        constexpr bool some_scaled = ScaleB ? (int(q) + 1) * threads > a_squares : int(q) * threads < a_squares;
        if constexpr (some_scaled && !same<Factor, unscaled_rows>) { scale_packs(next[q], factors[q]); }
        transpose(next[q]);
        unroll<0, W>([&](auto w)
                         TCNCA_INLINE { tcnca::store<W>(to[q] + int(w) * (is_a ? a_row : b_row), next[q][w]); });
      });
      group.sync();
      if (d + depth < dim) fetch(d + depth);
      if (active)
        t.template add<1, a_row, b_row>(panel + place.row, panel + depth * a_row + place.column, 0,
                                        min_of(depth, dim - d));
      group.sync();
    }
  }

  /// Calls add(panel, k, n) for the rows k .. k + n - 1 of `count`, n <= depth: columns [first, first + Columns) of
  /// them are in the panel, Columns elements apart, zeros from `dim` on, and in rows before `begin`, which do not
  /// exist. Otherwise as above.
  template <int Columns, class Row, class Factor, class Add>
  TCNCA_HOST_DEVICE void multiply_columns(A* panel, int begin, int count, int first, int dim, Row row, Factor factor,
                                          Add add) const {
    constexpr int packs = Columns / W, each = depth * packs / threads, step = threads / packs;
    static_assert(each * threads == depth * packs && step * packs == threads);
    array<value, each> next;
    [[maybe_unused]] array<A, each> factors;
    int const c = group.rank() % packs * W, r = group.rank() / packs;
    auto const fetch_packs = [&](int k, auto vectors) TCNCA_INLINE {
      unroll<0, each>([&](auto q) TCNCA_INLINE {
        int const i = k + r + int(q) * step, existing = max_of(begin, min_of(i, count - 1));
        next[q] = load_pack<decltype(vectors)::value>(row(existing), first + c, i >= begin && first + c < dim);
        if constexpr (!same<Factor, unscaled_rows>) { factors[q] = factor(existing); }
      });
    };
    auto const fetch = [&](int k) TCNCA_INLINE {
      if (in.vectorizable) fetch_packs(k, constant<1>{});
      else fetch_packs(k, constant<0>{});
    };
    fetch(0);
    for (int k = 0; k < count; k += depth) {
      unroll<0, each>([&](auto q) TCNCA_INLINE {
        if constexpr (!same<Factor, unscaled_rows>) { next[q] = next[q] * broadcast<W>(factors[q]); }
        tcnca::store<W>(panel + (r + int(q) * step) * Columns + c, next[q]);
      });
      group.sync();
      if (k + depth < count) fetch(k + depth);
      add(panel, k, min_of(depth, count - k));
      group.sync();
    }
  }

 private:
  /// A square of a panel of `rows` rows. Two squares next to each other in a row are 32 bytes of global memory each.
  struct square {
    int row, column;
    TCNCA_HOST_DEVICE static square of(int s, int rows) {
      int const pairs = s / 2;
      return {pairs % (rows / W) * W, (pairs / (rows / W) * 2 + s % 2) * W};
    }
  };
  TCNCA_HOST_DEVICE static void scale_packs(array<value, W>& packs, array<A, W> const& factors) {
    unroll<0, W>([&](auto w) TCNCA_INLINE { packs[w] = packs[w] * broadcast<W>(factors[w]); });
  }
  /// Elements [first, first + W) of a row; zeros if they do not exist. Extents are multiples of W.
  template <int Vectors>
  TCNCA_HOST_DEVICE static value load_pack(T const* row, int first, bool exists) {
    value v = broadcast<W>(A(0));
    if (!exists) return v;
    if constexpr (Vectors) {
      v = tcnca::load<W>(row + first);
    } else {
      unroll<0, W>([&](auto w) TCNCA_INLINE { v.set_lane(w, to_accumulate(row[first + int(w)])); });
    }
    return v;
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
