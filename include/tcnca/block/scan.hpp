// Linear recurrences s <- decay s + input along a sequence: the states that a group carries from tile to tile, and from
// thread to thread within a tile.
#pragma once
#include "pack.hpp"
#include "unroll.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// value + derivative e with e^2 = 0: a number and its derivative with respect to one variable.
template <class V>
struct dual {
  V value = V(0), derivative = V(0);

  TCNCA_HOST_DEVICE friend dual operator+(dual a, dual b) { return {a.value + b.value, a.derivative + b.derivative}; }
  TCNCA_HOST_DEVICE friend dual operator*(dual a, dual b) {
    return {a.value * b.value, a.value * b.derivative + a.derivative * b.value};
  }
};

/// Where element i of a table in shared memory lies: within each 128 bytes, 16-byte parts are exchanged. Without bank
/// conflicts, neighbouring threads then access neighbouring elements, neighbouring 16-byte vectors, or a vector each of
/// neighbouring runs of 32 or 64 bytes.
template <class A>
TCNCA_HOST_DEVICE constexpr int swizzled(int i) {
  constexpr uint32 part = 16 / sizeof(A), line = 8 * part;
  return int(uint32(i) ^ uint32(i) / line % 8 * part);
}

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
/// its segment adds to a state of zero; then the threads turn these into the states before all segments, `sharers`
/// threads for each row: each adds up neighbouring segments, then continues from what the threads before it found.
///
/// V is the number type A, or dual<A> for the states and their derivatives with respect to the decay.
template <class Group, class V, int W, int Rows, int Segments, bool OneThread = Group::size() == 1>
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
  /// the state at its end if the state before it is zero. complete: all segments have all their positions.
  template <class EndStates>
  TCNCA_HOST_DEVICE void find_states(EndStates, bool) const {}

  /// The state of a row before this thread's segment, or what store<true> left.
  TCNCA_HOST_DEVICE state load(int row) const { return state_of(row); }
  /// The state after the last position that was processed. Partial: this thread continues its segment from here with
  /// load(). ends_tile: no position follows in the tile. A tile that is not complete must end with a partial step.
  template <bool Partial>
  TCNCA_HOST_DEVICE void store(int row, state s, [[maybe_unused]] bool ends_tile) const {
    set_state(row, s);
  }
};

template <class Group, class V, int W, int Rows, int Segments>
struct recurrence_carry<Group, V, W, Rows, Segments, false> {
  static_assert(W == 1, "threads that share a sequence process one channel each");
  using number = detail::carried_number<V, W>;
  using A = typename number::A;
  using state = typename number::state;
  static constexpr int components = number::components;
  static constexpr int state_elements = components * Rows;

  /// Threads that share a row. Few segments: one, and then neighbouring threads have neighbouring rows.
  TCNCA_HOST_DEVICE static constexpr int threads_of_a_row() {
    int n = 1;
    while (Segments % 32 == 0 && Segments % (2 * n) == 0 && 2 * n * Rows <= Group::size()) n *= 2;
    return n;
  }
  static constexpr int sharers = threads_of_a_row(), chunk = Segments / sharers;
  static constexpr bool one_by_one = sharers == 1;
  static constexpr int vector = chunk % int(16 / sizeof(A)) == 0 ? int(16 / sizeof(A)) : 1;
  static constexpr int row_stride = Rows + 16;  // of one thread for each row: two segments use different banks
  static constexpr int table_elements = round_up(one_by_one ? Segments * row_stride : Rows * Segments, 32);
  static constexpr int chunk_decay_begin = components * Rows;
  static constexpr int table_begin = round_up(2 * components * Rows, 32);
  static constexpr int totals_begin = table_begin + components * table_elements;
  static constexpr int scratch_elements = totals_begin + round_up(one_by_one ? 0 : components * Group::size(), 16);

  Group group;
  int segment;
  A* states;
  A* scratch;  // [component][row] decays of a segment, and of a chunk of segments; states of the segments; totals

  TCNCA_HOST_DEVICE void set_state(int row, state s) const { number::store_state(states + row, Rows, s); }
  TCNCA_HOST_DEVICE state state_of(int row) const { return number::load_state(states + row, Rows); }
  TCNCA_HOST_DEVICE void set_decay(int row, pack<A, 1> decay, int positions) const {
    V const one = number::first_lane(number::variable(decay));
    V const segment_decay = power(one, positions);
    number::store(scratch + row, Rows, segment_decay);
    if constexpr (!one_by_one) { number::store(scratch + chunk_decay_begin + row, Rows, power(segment_decay, chunk)); }
  }

  template <class EndStates>
  TCNCA_HOST_DEVICE void find_states(EndStates end_states, bool complete) const {
    if (segment < Segments) end_states([&](int row, V v) { number::store(at(row, segment), table_elements, v); });
    group.sync();
    if constexpr (one_by_one) {
      for (int row = group.rank(); row < Rows; row += group.size()) {
        V const decay = number::load(scratch + row, Rows);
        V s = number::load(states + row, Rows);
        TCNCA_UNROLL
        for (int i = 0; i < Segments; i++) s = exchange(at(row, i), decay, s);
        if (complete) number::store(states + row, Rows, s);
      }
    } else {
      share_rows(complete);
    }
    group.sync();
  }

  TCNCA_HOST_DEVICE state load(int row) const {
    return number::broadcast(number::load(at(row, segment), table_elements));
  }
  template <bool Partial>
  TCNCA_HOST_DEVICE void store(int row, state s, bool ends_tile) const {
    if constexpr (Partial) {
      number::store(at(row, segment), table_elements, number::first_lane(s));
      if (ends_tile) set_state(row, s);
    }
  }

 private:
  TCNCA_HOST_DEVICE static V power(V base, int exponent) {
    V p = base;
    for (int i = 1; i < exponent; i++) p = p * base;
    return p;
  }
  TCNCA_HOST_DEVICE A* at(int row, int i) const {
    return scratch + table_begin + (one_by_one ? i * row_stride + row : row * Segments + (swizzled<A>(i) ^ shift(row)));
  }
  /// Where rows are short, several rows that are accessed at a time lie in different banks.
  TCNCA_HOST_DEVICE static constexpr int shift(int row) {
    constexpr uint32 lines = Segments / 32, part = 16 / sizeof(A);  // lines: of 32 elements in a row
    return lines >= 4 || lines == 0 ? 0 : int(uint32(row) % (4 / max_of(lines, 1u)) * lines * part);
  }
  /// Replaces what a segment adds by the state before it; returns the state after it.
  TCNCA_HOST_DEVICE static V exchange(A* p, V decay, V before) {
    V const added = number::load(p, table_elements);
    number::store(p, table_elements, before);
    return decay * before + added;
  }

  TCNCA_HOST_DEVICE void share_rows(bool complete) const {
    int const row = group.rank() / sharers, k = group.rank() % sharers;
    bool const active = Rows * sharers == Group::size() || row < Rows;
    detail::array<detail::array<A, chunk>, components> values;  // in registers
    V decay{}, s{};
    if (active) {
      decay = number::load(scratch + row, Rows), s = number::load(states + row, Rows);
      access_chunk<false>(row, k, values);
      V total{};
      unroll<0, chunk>([&](auto i) {
        V const added = number::load(&values[0][i], chunk);
        if constexpr (int(i) == 0) {
          total = added;
        } else {
          total = decay * total + added;
        }
      });
      number::store(scratch + totals_begin + group.rank(), Group::size(), total);
    }
    group.sync();
    if (active) {
      V const chunk_decay = number::load(scratch + chunk_decay_begin + row, Rows);
      A const* const totals = scratch + totals_begin + row * sharers;
      detail::array<detail::array<A, sharers>, components> before;
      unroll<0, components>([&](auto c) {
        constexpr int part = min_of(sharers, int(16 / sizeof(A)));
        unroll<0, sharers / part>([&](auto i) {
          auto const some = tcnca::load<part>(totals + c * Group::size() + i * part);
          unroll<0, part>([&](auto j) { before[c][i * part + j] = some.lane(j); });
        });
      });
      unroll<0, sharers - 1>([&](auto j) {
        V const next = chunk_decay * s + number::load(&before[0][j], sharers);
        s = j < k ? next : s;
      });
      unroll<0, chunk>([&](auto i) {
        V const added = number::load(&values[0][i], chunk);
        number::store(&values[0][i], chunk, s);
        s = decay * s + added;
      });
      access_chunk<true>(row, k, values);
      if (complete && k == sharers - 1) number::store(states + row, Rows, s);
    }
  }
  /// Loads or stores the numbers of a chunk.
  template <bool Store>
  TCNCA_HOST_DEVICE void access_chunk(int row, int k,
                                      detail::array<detail::array<A, chunk>, components>& values) const {
    constexpr bool in_line = 32 % chunk == 0;  // then parts of a chunk differ from the first in some bits of the place
    int const first = row * Segments + (swizzled<A>(k * chunk) ^ shift(row));
    unroll<0, chunk / vector>([&](auto i) {
      A* const p = in_line ? scratch + table_begin + (first ^ (i * vector)) : at(row, k * chunk + i * vector);
      unroll<0, components>([&](auto c) {
        pack<A, vector> v;
        if constexpr (Store) {
          unroll<0, vector>([&](auto j) { v.set_lane(j, values[c][i * vector + j]); });
          tcnca::store<vector>(p + c * table_elements, v);
        } else {
          v = tcnca::load<vector>(const_cast<A const*>(p) + c * table_elements);
          unroll<0, vector>([&](auto j) { values[c][i * vector + j] = v.lane(j); });
        }
      });
    });
  }
};

}  // namespace tcnca
