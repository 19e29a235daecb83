// Sums over the rows of a matrix, one per column, in an order that depends on the extents only.
#pragma once
#include "pass.hpp"

namespace tcnca::models {

namespace detail {

/// Columns that a group sums at once: four registers on the CPU; one per thread on a GPU, where the remaining threads
/// take further rows.
template <class Group, class T>
inline constexpr int summed_columns = Group::size() == 1 ? 4 * pass_width<Group, T>
                                                         : (Group::size() < 32 ? Group::size() : 32);

/// Sums rows [first, last) of summed_columns columns beginning at `column` and calls write(kind, column, sum). F
/// describes the terms: F::kinds sums per column, f.counts(row) tells whether a row contributes, f.add<W>(sums, row,
/// column) adds it. `shared` has F::kinds elements per thread.
template <class T, class Group, class F, class Write>
TCNCA_HOST_DEVICE void sum_rows(Group group, T* shared, index_t first, index_t last, index_t column, index_t columns,
                                F const& f, Write write) {
  constexpr int kinds = F::kinds, W = pass_width<Group, T>, block = summed_columns<Group, T>;
  if constexpr (Group::size() == 1) {
    (void)shared;
    if (column + block <= columns) {
      pack<T, W> sums[4][kinds];
      for (auto& s : sums)
        for (auto& k : s) k = broadcast<W>(T(0));
      for (index_t r = first; r < last; r++)
        if (f.counts(r))
          unroll<0, 4>([&](auto n) TCNCA_INLINE { f.template add<W>(sums[int(n)], r, column + int(n) * W); });
      for (int n = 0; n < 4; n++)
        for (int k = 0; k < kinds; k++)
          for (int i = 0; i < W; i++) write(k, column + n * W + i, sums[n][k].lane(i));
    } else {
      for (index_t c = column; c < columns; c++) {
        pack<T, 1> sums[kinds];
        for (auto& k : sums) k = broadcast<1>(T(0));
        for (index_t r = first; r < last; r++)
          if (f.counts(r)) f.template add<1>(sums, r, c);
        for (int k = 0; k < kinds; k++) write(k, c, sums[k].lane(0));
      }
    }
  } else {
    constexpr int threads = Group::size(), down = threads / block;
    static_assert((down & (down - 1)) == 0, "the threads of a group are a power of two");
    int const rank = group.rank();
    index_t const c = column + rank % block;
    pack<T, 1> sums[kinds];
    TCNCA_UNROLL
    for (int k = 0; k < kinds; k++) sums[k] = broadcast<1>(T(0));
    if (c < columns)
      for (index_t r = first + rank / block; r < last; r += down)
        if (f.counts(r)) f.template add<1>(sums, r, c);
    TCNCA_UNROLL
    for (int k = 0; k < kinds; k++) shared[k * threads + rank] = sums[k].lane(0);
    group.sync();
    for (int half = down / 2; half > 0; half /= 2) {
      if (rank < half * block)
        for (int k = 0; k < kinds; k++) shared[k * threads + rank] += shared[k * threads + rank + half * block];
      group.sync();
    }
    if (rank < block && c < columns)
      for (int k = 0; k < kinds; k++)
        write(k, c,
              shared[k * threads + rank]);  // the next item writes these elements from the same thread: no barrier
  }
}

/// Rows are split into segments, to have work for many threads.
constexpr index_t sum_segments(index_t rows) {
  return min_of(index_t(64), max_of(index_t(1), divide_up(rows, index_t(32))));
}

/// One item: a block of columns of one segment.
template <class T, class F>
struct segment_pass {
  using value_type = T;
  static constexpr int shared_per_thread = F::kinds;
  F f;
  index_t rows, columns, segments;
  T* partial;  // [segment][kind][columns]

  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, T* memory) const {
    constexpr index_t block = summed_columns<Group, T>;
    index_t const blocks = divide_up(columns, block), segment = item / blocks, each = divide_up(rows, segments);
    T* const out = partial + segment * F::kinds * columns;
    sum_rows<T>(group, memory, segment * each, min_of(rows, (segment + 1) * each), item % blocks * block, columns, f,
                [&](int kind, index_t c, T sum) TCNCA_INLINE { out[kind * columns + c] = sum; });
  }
};
/// Sums over the segments. One item: a block of columns of all kinds.
template <class T, int Kinds>
struct segments_pass {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  static constexpr index_t block = 256;
  T const* partial;
  index_t columns, segments;
  T* out[Kinds];

  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, T*) const {
    for (index_t c = item * block + group.rank(); c < min_of(columns, (item + 1) * block); c += group.size())
      for (int k = 0; k < Kinds; k++) {
        double total = 0;
        for (index_t s = 0; s < segments; s++) total += double(partial[(s * Kinds + k) * columns + c]);
        out[k][c] = T(total);
      }
  }
};

/// Sums term(i) for i < count. An item sums a block of terms.
template <class Term, class Total>
struct sum_pass {
  using value_type = typename Term::value_type;
  static constexpr int shared_per_thread = 1;
  Term term;
  index_t count, block;
  Total* totals;

  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, value_type* memory) const {
    row_threads<Group> const threads(group, 4 * Group::size());
    index_t const first = item * block, last = min_of(count, first + block);
    value_type sum = 0;
    for (index_t i = first + group.rank(); i < last; i += group.size()) sum += term(i);
    sum = threads.reduce(sum, memory, [](value_type a, value_type b) TCNCA_INLINE { return a + b; });
    if (group.rank() == 0) totals[item] = Total(sum);
  }
};
/// *total = the sum of term(i) for i < count.
template <class E, class Term, class Total>
void sum_terms(E e, index_t count, Term const& term, Total* total) {
  run_pass(e, 1, sum_pass<Term, Total>{term, count, count, total});
}

template <class T>
struct value_term {
  using value_type = double;
  T const* x;
  TCNCA_HOST_DEVICE double operator()(index_t i) const { return double(x[i]); }
};
/// 0, or NaN if the value is not finite.
template <class T>
struct finite_term {
  using value_type = T;
  T const* x;
  TCNCA_HOST_DEVICE T operator()(index_t i) const { return T(0) * x[i]; }
};

}  // namespace detail

/// Workspace bytes of column_sums, to be reserved.
template <class T>
constexpr size_t column_sums_bytes(index_t rows, index_t columns, int kinds) {
  // Monotonic in rows: fewer rows may have the same number of segments.
  return size_t(detail::sum_segments(rows) * kinds * columns) * sizeof(T);
}

/// out[kind][column] = sum over the rows. F has `static constexpr int kinds`, `bool counts(row)` and `void
/// add<W>(pack<T, W>*, row, column)`.
template <class T, class E, class F>
void column_sums(context<T, E> const& c, index_t rows, index_t columns, F const& f, T* const (&out)[F::kinds]) {
  index_t const segments = detail::sum_segments(rows);
  T* const partial = static_cast<T*>(c.scratch().data);
  run_pass(c.executor(), segments * divide_up(columns, index_t(detail::summed_columns<pass_group<E>, T>)),
           detail::segment_pass<T, F>{f, rows, columns, segments, partial});
  detail::segments_pass<T, F::kinds> add{partial, columns, segments, {}};
  for (int k = 0; k < F::kinds; k++) add.out[k] = out[k];
  run_pass(c.executor(), divide_up(columns, index_t(256)), add);
}

/// *total = the sum of x.
template <class T, class E>
void sum_all(E e, index_t count, T const* x, T* total) {
  detail::sum_terms(e, count, detail::value_term<T>{x}, total);
}

/// Whether all values are finite. For diagnosis only: slow, and waits for the result.
template <class T, class E>
bool all_finite(context<T, E> const& c, index_t count, T const* x) {
  detail::sum_terms(c.executor(), count, detail::finite_term<T>{x}, c.any_total());
  double result = 0;
  c.download(c.any_total(), &result, 1);
  return result == 0;
}

/// Terms of column_sums: the rows of a matrix [rows, columns].
template <class T>
struct matrix_rows {
  static constexpr int kinds = 1;
  T const* x;
  index_t columns;
  TCNCA_HOST_DEVICE static constexpr bool counts(index_t) { return true; }
  template <int W>
  TCNCA_HOST_DEVICE void add(pack<T, W>* sums, index_t r, index_t c) const {
    sums[0] = sums[0] + load<W>(x + r * columns + c);
  }
};

}  // namespace tcnca::models
