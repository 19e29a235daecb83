// Passes over a model's activations: a functor runs over items on the CPU's threads, or on groups of CUDA threads, from one source.
#pragma once
#include <tcnca/arch/host.hpp>
#include <tcnca/block/pack.hpp>
#include <tcnca/block/unroll.hpp>
#include <tcnca/launch/cpu.hpp>
#if defined(__CUDACC__)
#include <tcnca/launch/cuda.cuh>
#endif

#include "memory.hpp"

namespace tcnca::models {

/// Threads of a group on a GPU.
inline constexpr int pass_threads = 256;
/// The group in which an executor runs an item: one thread on the CPU.
template <class E>
using pass_group = typename executor_traits<E>::template group<pass_threads>;
/// Neighbours that a thread takes at once: a register on the CPU; on a GPU the threads are neighbours.
template <class Group, class T>
inline constexpr int pass_width = Group::size() == 1 ? tcnca::detail::register_bytes / int(sizeof(T)) : 1;

/// A functor as the library launches it.
template <class Group, class F>
struct pass_agent {
  using A = typename F::number;
  using group_type = Group;
  Group group;
  F const& f;
  A* near;
  TCNCA_HOST_DEVICE pass_agent(Group g, F const& functor, A* shared_memory, A*)
      : group(g), f(functor), near(shared_memory) {}
  TCNCA_HOST_DEVICE void operator()(index_t item) const { f(group, item, near); }
};

/// f(group, item, near) for items 0, 1, ...; `near` has F::near numbers of type F::number for each thread of a group that has more than one.
/// Items are independent, and what they are does not depend on the number of threads, so results have the same bits for any.
template <class E, class F>
TCNCA_HIDDEN void run_pass(E e, index_t items, F const& f) {
  if constexpr (same<E, cpu>) {
    [[maybe_unused]] int const threads = int(executor_traits<cpu>::workers(e, items));
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
    for (index_t item = 0; item < items; item++) f(serial_group{}, item, static_cast<typename F::number*>(nullptr));
  } else {
    if (items <= 0) return;
    group_memory const memory{size_t(F::near) * pass_threads * sizeof(typename F::number), 0};
    require(executor_traits<E>::template launch<pass_agent<pass_group<E>, F>>(e, f, items, memory, {}));
  }
}

/// op.at<W>(i) for elements i, i + 1, ..., W at once.
template <class T, class Op>
struct element_pass {
  using number = T;
  static constexpr int near = 0;
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
template <class T, class E, class Op>
void each_element(E e, index_t count, Op const& op) {
  using pass = element_pass<T, Op>;
  run_pass(e, divide_up(count, pass::template block<pass_group<E>>), pass{op, count});
}

/// How a group's threads lie over a matrix: a power of two of them along the columns, the others on further rows.
template <class Group>
struct row_threads {
  Group group;
  int side;
  template <class T>
  static constexpr int width = pass_width<Group, T>;

  TCNCA_HOST_DEVICE static constexpr int side_for(index_t columns) {
    int n = 1;
    while (n < Group::size() && 4 * n < columns) n *= 2;
    return n;
  }
  TCNCA_HOST_DEVICE row_threads(Group g, index_t columns) : group(g), side(side_for(columns)) {}
  /// Items that all rows are.
  static constexpr index_t items(index_t rows, index_t columns) {
    return divide_up(rows, index_t(Group::size() / side_for(columns)));
  }

  /// This thread's row of an item, which may lie beyond the last.
  TCNCA_HOST_DEVICE index_t row(index_t item) const { return item * (Group::size() / side) + group.rank() / side; }
  TCNCA_HOST_DEVICE int lane() const { return group.rank() % side; }

  /// f(constant<W>, column) for the columns of a row that fall to this thread.
  template <class T, class F>
  TCNCA_HOST_DEVICE void each(index_t columns, F f) const {
    constexpr int W = pass_width<Group, T>;
    index_t k = index_t(lane()) * W;
    for (; k + W <= columns; k += index_t(side) * W) f(constant<W>{}, k);
    if constexpr (W > 1) {
      for (; k < columns; k++) f(constant<1>{}, k);
    }
  }
  /// Combines a number of each of the row's threads, as a tree; they all get the result. Called by all threads of the group.
  template <class T, class Combine>
  TCNCA_HOST_DEVICE T tree(T value, T* near, Combine combine) const {
    if constexpr (Group::size() == 1) {
      return value;
    } else {
      int const rank = group.rank();
      near[rank] = value;
      group.sync();
      for (int half = side / 2; half > 0; half /= 2) {
        if (lane() < half) near[rank] = combine(near[rank], near[rank + half]);
        group.sync();
      }
      T const result = near[rank - lane()];
      group.sync();  // before the memory is used again
      return result;
    }
  }
  /// The sum of the packs f(constant<W>, column) over a row; 0 where it is `beyond` the last. Called by all threads of the group.
  template <class T, class F>
  TCNCA_HOST_DEVICE T sum(bool beyond, index_t columns, T* near, F f) const {
    constexpr int W = pass_width<Group, T>;
    auto packs = broadcast<W>(T(0));
    T rest = 0;
    if (!beyond) {
      each<T>(columns, [&](auto w, index_t k) TCNCA_INLINE {
        if constexpr (decltype(w)::value == W) {
          packs = packs + f(w, k);
        } else {
          rest += f(w, k).lane(0);
        }
      });
    }
    return tree(sum_lanes(packs) + rest, near, [](T a, T b) TCNCA_INLINE { return a + b; });
  }
};

/// A pass over the rows of a matrix: op(row_threads, row, beyond, near), with barriers for all threads alike; `beyond`: there is no such row.
template <class Op>
struct row_pass {
  using number = typename Op::number;
  static constexpr int near = Op::near;
  Op op;
  index_t rows, columns;

  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, number* memory) const {
    row_threads<Group> const threads(group, columns);
    index_t const row = threads.row(item);
    op(threads, row, row >= rows, memory);
  }
};
template <class E, class Op>
void each_row(E e, index_t rows, index_t columns, Op const& op) {
  run_pass(e, row_threads<pass_group<E>>::items(rows, columns), row_pass<Op>{op, rows, columns});
}

}  // namespace tcnca::models
