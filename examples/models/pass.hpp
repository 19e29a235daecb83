// Passes over a model's activations: one source for the CPU's threads and for CUDA thread blocks.
#pragma once
#include <tcnca/block/pack.hpp>
#include <tcnca/block/unroll.hpp>
#include <tcnca/launch/launch.hpp>

#include "memory.hpp"

namespace tcnca::models {

/// Threads per group on a GPU.
inline constexpr int pass_threads = 256;
/// The group that processes an item: one thread on the CPU.
template <class E>
using pass_group = typename executor_traits<E>::template group<pass_threads>;
/// Elements per thread and load: a vector register on the CPU; one on a GPU, where neighbouring threads load
/// neighbouring elements.
template <class Group, class T>
inline constexpr int pass_width = Group::size() == 1 ? native_lanes<T> : 1;

/// An agent whose algorithm is a functor: f(group, item, shared). `shared` has F::shared_per_thread elements of type
/// F::value_type for each thread of the group; on the CPU it is not used.
template <class Group, class F>
struct pass_agent {
  using A = typename F::value_type;
  using group_type = Group;
  struct params_type {
    F f;
    index_t count;
  };
  static index_t items(params_type const& p) { return p.count; }
  static group_memory memory(params_type const&) {
    size_t const per_thread = size_t(F::shared_per_thread) * sizeof(A);
    return {.shared_memory_bytes = Group::size() == 1 ? 0 : per_thread * size_t(Group::size())};
  }

  TCNCA_HOST_DEVICE pass_agent(Group g, params_type const& p, A* shared_memory, A*)
      : group(g), f(p.f), shared(shared_memory) {}
  TCNCA_HOST_DEVICE void operator()(index_t item) const { f(group, item, shared); }

  Group group;
  F const& f;
  A* shared;
};

/// Runs f for items 0 to count - 1. Items are independent and do not depend on the number of threads, so the results
/// have the same bits for any number.
template <class E, class F>
TCNCA_HIDDEN void run_pass(E e, index_t count, F const& f) {
  require(launch<pass_agent<pass_group<E>, F>>(e, {f, count}));
}

/// op.at<W>(i) processes elements i to i + W - 1.
template <class T, class Op>
struct element_pass {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  template <class Group>
  static constexpr index_t block = Group::size() == 1 ? 4096 : 4 * Group::size();
  Op op;
  index_t count;

  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, T*) const {
    constexpr int W = pass_width<Group, T>;
    index_t const first = item * block<Group>, last = min_of(count, first + block<Group>);
    index_t i = first + group.rank() * W;
    for (; i + W <= last; i += group.size() * W) op.template at<W>(i);
    if constexpr (W > 1) {
      for (; i < last; i++) op.template at<1>(i);
    }
  }
};
/// Calls op.at for all elements.
template <class T, class E, class Op>
void each_element(E e, index_t count, Op const& op) {
  using pass = element_pass<T, Op>;
  run_pass(e, divide_up(count, pass::template block<pass_group<E>>), pass{op, count});
}

/// The threads of a group, arranged over a matrix: `per_row` of them (a power of two) share a row, the others take
/// further rows.
template <class Group>
struct row_threads {
  Group group;
  int per_row;
  template <class T>
  static constexpr int width = pass_width<Group, T>;

  TCNCA_HOST_DEVICE row_threads(Group g, index_t columns) : group(g), per_row(threads_for(columns)) {}
  TCNCA_HOST_DEVICE static constexpr int threads_for(index_t columns) {
    int n = 1;
    while (n < Group::size() && 4 * n < columns) n *= 2;
    return n;
  }
  /// Rows that the group processes at the same time.
  TCNCA_HOST_DEVICE static constexpr int rows_at_once(index_t columns) { return Group::size() / threads_for(columns); }

  /// This thread's row, counted from the first row of the group.
  TCNCA_HOST_DEVICE int row() const { return group.rank() / per_row; }
  /// This thread's place among those that share its row.
  TCNCA_HOST_DEVICE int lane() const { return group.rank() % per_row; }

  /// Calls f(constant<W>, column) for the columns that this thread processes.
  template <class T, class F>
  TCNCA_HOST_DEVICE void each(index_t columns, F f) const {
    constexpr int W = pass_width<Group, T>;
    index_t k = index_t(lane()) * W;
    for (; k + W <= columns; k += index_t(per_row) * W) f(constant<W>{}, k);
    if constexpr (W > 1) {
      for (; k < columns; k++) f(constant<1>{}, k);
    }
  }
  /// Reduces one value per thread over each row, as a balanced tree; all threads of the row get the result. Called by
  /// all threads of the group; ends with a barrier. `shared` has one element per thread.
  template <class T, class Combine>
  TCNCA_HOST_DEVICE T reduce(T value, [[maybe_unused]] T* shared, [[maybe_unused]] Combine combine) const {
    if constexpr (Group::size() == 1) {
      return value;
    } else {
      int const rank = group.rank();
      shared[rank] = value;
      group.sync();
      for (int distance = per_row / 2; distance > 0; distance /= 2) {
        if (lane() < distance) shared[rank] = combine(shared[rank], shared[rank + distance]);
        group.sync();
      }
      T const result = shared[rank - lane()];
      group.sync();  // before the memory is reused
      return result;
    }
  }
  /// The sum of the packs f(constant<W>, column) over a row; 0 if the row is out of range. Called by all threads of the
  /// group.
  template <class T, class F>
  TCNCA_HOST_DEVICE T sum(bool out_of_range, index_t columns, T* shared, F f) const {
    constexpr int W = pass_width<Group, T>;
    auto packs = broadcast<W>(T(0));
    T rest = 0;
    if (!out_of_range) {
      each<T>(columns, [&](auto w, index_t k) TCNCA_INLINE {
        if constexpr (decltype(w)::value == W) {
          packs = packs + f(w, k);
        } else {
          rest += f(w, k).lane(0);
        }
      });
    }
    return reduce(sum_lanes(packs) + rest, shared, [](T a, T b) TCNCA_INLINE { return a + b; });
  }
};

/// A pass over the rows of a matrix: op(row_threads, row, out_of_range, shared). All threads of a group call it, for
/// the sake of its barriers; out_of_range says that there is no such row.
template <class Op>
struct row_pass {
  using value_type = typename Op::value_type;
  static constexpr int shared_per_thread = Op::shared_per_thread;
  Op op;
  index_t rows, columns;

  /// Rows per item. One CPU thread takes several, so that taking an item costs little.
  template <class Group>
  TCNCA_HOST_DEVICE static constexpr index_t block(index_t columns) {
    return Group::size() == 1 ? 16 : row_threads<Group>::rows_at_once(columns);
  }
  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, value_type* shared) const {
    row_threads<Group> const threads(group, columns);
    index_t const first = item * block<Group>(columns);
    if constexpr (Group::size() == 1) {
      for (index_t row = first; row < min_of(rows, first + block<Group>(columns)); row++)
        op(threads, row, false, shared);
    } else {
      index_t const row = first + threads.row();
      op(threads, row, row >= rows, shared);
    }
  }
};
/// Calls op for all rows.
template <class E, class Op>
void each_row(E e, index_t rows, index_t columns, Op const& op) {
  using pass = row_pass<Op>;
  run_pass(e, divide_up(rows, pass::template block<pass_group<E>>(columns)), pass{op, rows, columns});
}

}  // namespace tcnca::models
