// Linear recurrences s <- decay s + value, shared out to the threads of a group: a scan of affine maps.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// value + derivative e with e^2 = 0: a number and its derivative with respect to one variable.
template <class V>
struct dual {
  V value = V(0), derivative = V(0);

  TCNCA_HOST_DEVICE friend dual operator+(dual a, dual b) { return {a.value + b.value, a.derivative + b.derivative}; }
  TCNCA_HOST_DEVICE friend dual operator*(dual a, dual b) {
    return {a.value * b.value, a.value * b.derivative + a.derivative * b.value};
  }
  TCNCA_HOST_DEVICE friend bool operator==(dual a, V b) { return a.value == b && a.derivative == V(0); }
};

/// The map s -> decay s + value. V is a number or a dual number.
template <class V>
struct decaying {
  V decay, value;

  /// The map that changes nothing.
  TCNCA_HOST_DEVICE static decaying identity() { return {V{1}, V{0}}; }
  /// `earlier`, then `later`. A decay of zero forgets what was before, infinities included.
  TCNCA_HOST_DEVICE friend decaying then(decaying earlier, decaying later) {
    if (later.decay == 0) return later;
    return {earlier.decay * later.decay, later.decay * earlier.value + later.value};
  }
};

/// A scan over the threads of any group, by way of fast memory. cub_scan in scan.cuh is the same for a CUDA block.
struct group_scan {
  /// Fast memory, aligned to 16 bytes.
  template <class V, int Threads>
  static constexpr size_t bytes = Threads > 1 ? Threads * sizeof(decaying<V>) : 0;

  /// The maps of all threads before this one, the first of them first. Called by all threads of the group; valid in all of them.
  /// Source: Kogge and Stone; 2 log2(threads) barriers.
  template <class V, class Group>
  TCNCA_HOST_DEVICE static decaying<V> exclusive(Group group, void* shared_memory, decaying<V> mine) {
    auto* const all = static_cast<decaying<V>*>(shared_memory);
    int const rank = group.rank();
    all[rank] = mine;
    group.sync();
    for (int distance = 1; distance < group.size(); distance *= 2) {
      if (rank >= distance) mine = then(all[rank - distance], mine);
      group.sync();
      all[rank] = mine;
      group.sync();
    }
    return rank > 0 ? all[rank - 1] : decaying<V>::identity();
  }
};

/// Where element i of a table lies that threads read in runs of 16 or so: a gap after each 16 keeps shared memory free of conflicts.
TCNCA_HOST_DEVICE constexpr int spread(int i) { return i + i / 16; }

/// Rows of numbers in fast memory, or of dual numbers: their derivatives `derivatives` elements further on.
template <class V>
struct spread_table {
  V* data;
  TCNCA_HOST_DEVICE V load(int i) const { return data[spread(i)]; }
  TCNCA_HOST_DEVICE void store(int i, V v) const { data[spread(i)] = v; }
};
template <class A>
struct spread_table<dual<A>> {
  A* data;
  int derivatives;
  TCNCA_HOST_DEVICE dual<A> load(int i) const { return {data[spread(i)], data[derivatives + spread(i)]}; }
  TCNCA_HOST_DEVICE void store(int i, dual<A> v) const {
    data[spread(i)] = v.value, data[derivatives + spread(i)] = v.derivative;
  }
};

/// Recurrences s <- decay(row) s + table[row][column] over the columns, from carry(row): replaces each element by the s before it.
/// One scan serves all rows: each thread folds a run of neighbouring elements, and a row begins by forgetting the one before.
/// Called by all threads, between barriers; `near` has Scan::bytes.
template <int Columns, class Scan, class V, class Group, class Decay, class Carry>
TCNCA_HOST_DEVICE void scan_rows(Group group, spread_table<V> table, int rows, void* shared_memory, Decay decay,
                                 Carry carry) {
  int const total = rows * Columns, each = divide_up(total, group.size());
  int const begin = group.rank() * each, end = min_of(begin + each, total);
  auto mine = decaying<V>::identity();
  for (int i = begin; i < end; i++) {
    V const d = decay(i / Columns), v = table.load(i);
    mine = i % Columns == 0 ? decaying<V>{V{0}, d * carry(i / Columns) + v}
                            : decaying<V>{mine.decay * d, d * mine.value + v};
  }
  V s = Scan::template exclusive<V>(group, shared_memory, mine).value;
  for (int i = begin; i < end; i++) {
    if (i % Columns == 0) s = carry(i / Columns);
    V const v = table.load(i);
    table.store(i, s);
    s = decay(i / Columns) * s + v;
  }
}

}  // namespace tcnca
