// Linear recurrences s <- decay s + input along a sequence: scans of affine maps over the threads of a group, and the
// states that a group carries from tile to tile.
#pragma once
#include "pack.hpp"

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
struct affine_map {
  V decay, value;

  TCNCA_HOST_DEVICE static affine_map identity() { return {V{1}, V{0}}; }
  /// `earlier`, then `later`. A decay of zero discards the earlier value, also if that is infinite or NaN.
  TCNCA_HOST_DEVICE friend affine_map then(affine_map earlier, affine_map later) {
    if (later.decay == 0) return later;
    return {earlier.decay * later.decay, later.decay * earlier.value + later.value};
  }
};

/// An exclusive scan over the threads of any group, through shared memory. cub_scan in scan.cuh is the same for a CUDA
/// block.
struct group_scan {
  /// Shared memory, aligned to 16 bytes.
  template <class V, int Threads>
  static constexpr size_t bytes = Threads > 1 ? Threads * sizeof(affine_map<V>) : 0;

  /// The composition of the maps of all threads before this one, in the order of their ranks. Called by all threads of
  /// the group; valid in all of them. The caller syncs before it uses the memory for anything else. Kogge-Stone: 2
  /// log2(threads) + 1 barriers.
  template <class V, class Group>
  TCNCA_HOST_DEVICE static affine_map<V> exclusive(Group group, void* shared_memory, affine_map<V> map) {
    auto* const maps = static_cast<affine_map<V>*>(shared_memory);
    int const rank = group.rank();
    maps[rank] = map;
    group.sync();
    for (int distance = 1; distance < group.size(); distance *= 2) {
      if (rank >= distance) map = then(maps[rank - distance], map);
      group.sync();
      maps[rank] = map;
      group.sync();
    }
    return rank > 0 ? maps[rank - 1] : affine_map<V>::identity();
  }
};

/// The place of element i in a table with one element of padding after every 16: threads that access segments of about
/// 16 neighbours at a time then use different banks of shared memory.
TCNCA_HOST_DEVICE constexpr int bank_padded(int i) { return i + i / 16; }

namespace detail {

/// How a recurrence's numbers V lie in memory: V = A in one array; V = dual<A> in two, the derivatives `stride`
/// elements after the values. In registers a state has W numbers.
template <class V, int W>
struct carried_number {
  using A = V;
  using state = pack<A, W>;
  static constexpr int components = 1;
  TCNCA_HOST_DEVICE static V load(A const* p, int) { return *p; }
  TCNCA_HOST_DEVICE static void store(A* p, int, V v) { *p = v; }
  TCNCA_HOST_DEVICE static state load_state(A const* p, int) { return tcnca::load<W>(p); }
  TCNCA_HOST_DEVICE static void store_state(A* p, int, state s) { tcnca::store<W>(p, s); }
  TCNCA_HOST_DEVICE static state broadcast(V v) { return tcnca::broadcast<W>(v); }
  TCNCA_HOST_DEVICE static V first_lane(state s) { return s.lane(0); }
  /// A decay as the variable of differentiation.
  TCNCA_HOST_DEVICE static state variable(state decay) { return decay; }
};
template <class T, int W>
struct carried_number<dual<T>, W> {
  using A = T;
  using state = dual<pack<A, W>>;
  static constexpr int components = 2;
  TCNCA_HOST_DEVICE static dual<A> load(A const* p, int stride) { return {p[0], p[stride]}; }
  TCNCA_HOST_DEVICE static void store(A* p, int stride, dual<A> v) { p[0] = v.value, p[stride] = v.derivative; }
  TCNCA_HOST_DEVICE static state load_state(A const* p, int stride) {
    return {tcnca::load<W>(p), tcnca::load<W>(p + stride)};
  }
  TCNCA_HOST_DEVICE static void store_state(A* p, int stride, state s) {
    tcnca::store<W>(p, s.value), tcnca::store<W>(p + stride, s.derivative);
  }
  TCNCA_HOST_DEVICE static state broadcast(dual<A> v) {
    return {tcnca::broadcast<W>(v.value), tcnca::broadcast<W>(v.derivative)};
  }
  TCNCA_HOST_DEVICE static dual<A> first_lane(state s) { return {s.value.lane(0), s.derivative.lane(0)}; }
  TCNCA_HOST_DEVICE static state variable(pack<A, W> decay) { return {decay, tcnca::broadcast<W>(A(1))}; }
};

}  // namespace detail

/// The states of Rows recurrences s <- decay s + input that a group computes along a sequence, tile by tile. A tile is
/// cut into segments of neighbouring positions; thread `segment` of the Segments threads that share a row computes one
/// of them. `states` (state_elements elements) holds the states before a tile while the tile is processed, and after it
/// the states behind the tile.
///
/// This is the version for a group of one thread: it computes segment after segment, W sequences in the lanes of a
/// pack, and stores the state after each. The version for several threads has W = 1; every thread first computes what
/// its segment adds to a state of zero, and a scan over the threads turns these into the states before all segments.
///
/// V is the number type A, or dual<A> for the states and their derivatives with respect to the decay.
template <class Group, class V, int W, int Rows, int Segments, class Scan, bool OneThread = Group::size() == 1>
struct recurrence_carry {
  using number = detail::carried_number<V, W>;
  using A = typename number::A;
  using state = typename number::state;
  static constexpr int state_elements = number::components * Rows * W;
  static constexpr int scratch_elements = 0;

  Group group;
  int segment;
  A* states;   // [component][row][W]
  A* scratch;  // scratch_elements, aligned to 16 elements

  /// The state of a row before the next tile. set_state and set_decay are called by one thread for each row; a barrier
  /// must follow.
  TCNCA_HOST_DEVICE void set_state(int row, state s) const { number::store_state(states + row * W, Rows * W, s); }
  TCNCA_HOST_DEVICE state state_of(int row) const {
    return number::load_state(const_cast<A const*>(states) + row * W, Rows * W);
  }
  /// The decay of one position; every segment but the last one of a sequence has `positions` positions.
  TCNCA_HOST_DEVICE void set_decay(int, pack<A, W>, int) const {}

  /// Prepares load() for a tile. Called by all threads, after a barrier; there are barriers inside, the last at the
  /// end. end_states(store) must call store(row, V) for every row, where V is what this thread's segment alone adds:
  /// the state at its end if the state before it is zero.
  template <class EndStates>
  TCNCA_HOST_DEVICE void find_states(EndStates) const {}

  /// The state of a row before this thread's segment, or what store<true> left.
  TCNCA_HOST_DEVICE state load(int row) const { return state_of(row); }
  /// The state after the last position that was processed. Partial: this thread continues its segment from here with
  /// load().
  template <bool Partial>
  TCNCA_HOST_DEVICE void store(int row, state s, [[maybe_unused]] bool ends_tile) const {
    set_state(row, s);
  }
};

template <class Group, class V, int W, int Rows, int Segments, class Scan>
struct recurrence_carry<Group, V, W, Rows, Segments, Scan, false> {
  static_assert(W == 1, "threads that share a sequence process one channel each");
  using number = detail::carried_number<V, W>;
  using A = typename number::A;
  using state = typename number::state;
  static constexpr int state_elements = number::components * Rows;
  static constexpr int decay_elements = round_up(number::components * Rows, 16);
  static constexpr int table_elements = round_up(bank_padded(Rows * Segments) + 1, 16);  // of one component
  static constexpr int scan_begin = decay_elements + number::components * table_elements;
  static constexpr int scratch_elements =
      scan_begin + int(round_up(divide_up(Scan::template bytes<V, Group::size()>, sizeof(A)), size_t(16)));

  Group group;
  int segment;
  A* states;
  A* scratch;  // [component][row] decays of a segment; [component][row][segment] states, padded; memory of the scan

  TCNCA_HOST_DEVICE void set_state(int row, state s) const { number::store_state(states + row, Rows, s); }
  TCNCA_HOST_DEVICE state state_of(int row) const { return number::load_state(states + row, Rows); }
  TCNCA_HOST_DEVICE void set_decay(int row, pack<A, 1> decay, int positions) const {
    state const one = number::variable(decay);
    state power = one;
    for (int i = 1; i < positions; i++) power = power * one;
    number::store_state(scratch + row, Rows, power);
  }

  template <class EndStates>
  TCNCA_HOST_DEVICE void find_states(EndStates end_states) const {
    if (segment < Segments)
      end_states([&](int row, V v) { number::store(at(row * Segments + segment), table_elements, v); });
    group.sync();
    scan_table();
    group.sync();
  }

  TCNCA_HOST_DEVICE state load(int row) const {
    return number::broadcast(number::load(at(row * Segments + segment), table_elements));
  }
  template <bool Partial>
  TCNCA_HOST_DEVICE void store(int row, state s, bool ends_tile) const {
    if constexpr (Partial) { number::store(at(row * Segments + segment), table_elements, number::first_lane(s)); }
    if (ends_tile) set_state(row, s);
  }

 private:
  TCNCA_HOST_DEVICE A* at(int i) const { return scratch + decay_elements + bank_padded(i); }

  /// Replaces every end state in the table by the state before that segment. One scan serves all rows: a thread takes
  /// consecutive elements of the table, and a row's first map has a decay of zero, which separates it from the row
  /// before.
  TCNCA_HOST_DEVICE void scan_table() const {
    constexpr int total = Rows * Segments, per_thread = divide_up(total, Group::size());
    int const begin = group.rank() * per_thread, end = min_of(begin + per_thread, total);
    auto const decay = [&](int row) { return number::load(scratch + row, Rows); };
    auto const before_tile = [&](int row) { return number::load(states + row, Rows); };
    auto map = affine_map<V>::identity();
    for (int i = begin; i < end; i++) {
      V const d = decay(i / Segments), v = number::load(at(i), table_elements);
      map = i % Segments == 0 ? affine_map<V>{V{0}, d * before_tile(i / Segments) + v}
                              : affine_map<V>{map.decay * d, d * map.value + v};
    }
    V s = Scan::template exclusive<V>(group, scratch + scan_begin, map).value;
    for (int i = begin; i < end; i++) {
      if (i % Segments == 0) s = before_tile(i / Segments);
      V const v = number::load(at(i), table_elements);
      number::store(at(i), table_elements, s);
      s = decay(i / Segments) * s + v;
    }
  }
};

}  // namespace tcnca
