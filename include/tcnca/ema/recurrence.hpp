// The recurrence of an EMA over one tile, and what the agents of sequences have in common.
#pragma once
#include "../block/agent.hpp"
#include "../block/scan.hpp"
#include "../block/unroll.hpp"
#include "coefficients.hpp"
#include "tile.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The base of the agents. Tables in shared memory have one pack for each state and pack of channels: row state * packs
/// + pack.
template <class Group, element T, ema_shape Shape, ema_policy Policy>
struct ema_agent_base {
  using tiling = ema_tiling<Group::size(), T, Shape, Policy>;
  using A = accumulate_t<T>;
  using value = pack<A, tiling::width>;
  static constexpr int N = Shape.states, W = tiling::width, packs = tiling::packs, channels = tiling::channels;
  static constexpr int rows = N * packs, table_elements = N * channels;
  static constexpr int outputs_per_thread = tiling::outputs_per_thread, segments = tiling::segments;
  template <class V>
  using carry_of = recurrence_carry<Group, V, W, rows, segments>;

  // Shared memory, in elements of A: tables of q, u, w and u w; omega of the channels; then the memory of the derived
  // agent.
  static constexpr int q_begin = 0, u_begin = table_elements, w_begin = 2 * table_elements,
                       uw_begin = 3 * table_elements;
  static constexpr int omega_begin = 4 * table_elements, base_elements = round_up(omega_begin + channels, 16);

  Group group;
  A* shared_memory;
  int pack_;     // the pack of channels that this thread processes
  int segment_;  // its segment in a round; threads with segments or more have none

  TCNCA_HOST_DEVICE ema_agent_base(Group g, A* shared)
      : group(g), shared_memory(shared), pack_(g.rank() % packs), segment_(g.rank() / packs) {}

  /// An item is a block of channels of one sequence.
  TCNCA_HOST_DEVICE static constexpr index_t items(index_t batch, index_t all_channels) {
    return batch * divide_up(all_channels, index_t(channels));
  }

  /// The pack of a table for a row, in shared memory.
  TCNCA_HOST_DEVICE A* at(int table, int row) const { return shared_memory + table + row * W; }
  TCNCA_HOST_DEVICE value load_row(int table, int row) const { return load<W>(const_cast<A const*>(at(table, row))); }
  TCNCA_HOST_DEVICE int row(int state) const { return state * packs + pack_; }

  /// visit(row, state, first channel, number of valid channels) for all rows, each by one thread.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_row(int valid_channels, Visit visit) const {
    for (int r = group.rank(); r < rows; r += group.size()) {
      int const c = r % packs * W;
      visit(r, r / packs, c, max_of(0, min_of(W, valid_channels - c)));
    }
  }

  /// Writes the coefficients to shared memory, and the decays to the carry; zero for channels that are not valid.
  /// first_row: the row of the parameters for channel 0. Called by all threads; does not sync.
  template <class Carry>
  TCNCA_HOST_DEVICE void load_coefficients(ema_parameters<A> const& parameters, index_t channel, int valid_channels,
                                           index_t first_row, Carry const& carry) const {
    for_each_row(valid_channels, [&](int r, int n, int c, int count) {
      index_t const first = count > 0 ? channel + c : channel;
      ema_coefficients<A, W> const k(parameters, first_row + first, n, count, A(ema_scale<N>));
      store<W>(at(q_begin, r), k.q), store<W>(at(u_begin, r), k.u), store<W>(at(w_begin, r), k.w);
      store<W>(at(uw_begin, r), k.u * k.w);
      carry.set_decay(r, k.q, outputs_per_thread);
    });
    if constexpr (Shape.skip) {
      for (int c = group.rank(); c < channels; c += group.size())
        shared_memory[omega_begin + c] = c < valid_channels ? *parameters.omega.at(channel + c) : A(0);
    }
  }
  TCNCA_HOST_DEVICE value omega() const { return load_row(omega_begin, pack_); }

  /// State n of `count` channels in a tensor [batch, channels, states]; zero if the tensor is absent.
  TCNCA_HOST_DEVICE static value load_state(sequence_view<A const> const& state, index_t batch, index_t channel, int n,
                                            int count) {
    bool const present = state.present() && count > 0;
    return present ? load_some<W>(state.at(batch, channel, n), state.stride[1], count) : broadcast<W>(A(0));
  }

  /// Copies n elements of a tile to the global scratch or back, all threads together. Both are aligned to 16 elements.
  /// Does not sync.
  TCNCA_HOST_DEVICE void copy_tile(A const* tile, A* scratch, int n) const {
    for_each_copy(n, [&](int i, auto part)
                         TCNCA_INLINE { store_global<part>(scratch + i, load<part>(tile + tiling::place(i))); });
  }
  TCNCA_HOST_DEVICE void copy_to_tile(A const* scratch, A* tile, int n) const {
    for_each_copy(
        n, [&](int i, auto part) TCNCA_INLINE { store<part>(tile + tiling::place(i), load<part>(scratch + i)); });
  }

  /// visit(first position, number of positions) for the tiles of a sequence. Reverse: the last tile first.
  template <bool Reverse, class Visit>
  TCNCA_HOST_DEVICE static void for_each_tile(index_t length, Visit visit) {
    index_t const tiles = divide_up(length, index_t(tiling::tile));
    for (index_t i = 0; i < tiles; i++) {
      index_t const first = (Reverse ? tiles - 1 - i : i) * tiling::tile;
      visit(first, int(min_of(index_t(tiling::tile), length - first)));
    }
  }
  /// Where the tile after this one begins; may lie outside of the sequence.
  template <bool Reverse>
  TCNCA_HOST_DEVICE static index_t next_tile(index_t first, int n) {
    return Reverse ? first - tiling::tile : first + n;
  }

  /// The positions of a tile that this thread processes in a round, in the order of the recurrence: element `offset` of
  /// the tile in shared memory, then `step` elements further each.
  struct segment {
    int offset, step, count;
    bool ends_tile;
  };
  template <bool Reverse>
  TCNCA_HOST_DEVICE segment segment_of(int round, int n) const {
    int const begin = (round * segments + segment_) * outputs_per_thread;
    int const count = segment_ < segments ? max_of(0, min_of(outputs_per_thread, n - begin)) : 0;
    int const position = Reverse ? n - 1 - begin : begin;
    return {position * channels + pack_ * W, Reverse ? -channels : channels, count, count > 0 && begin + count == n};
  }
  /// visit(round) for the rounds of a tile of n positions. All threads have the same number of rounds.
  template <class Visit>
  TCNCA_HOST_DEVICE static void for_each_round(int n, Visit visit) {
    for (int r = 0; r < tiling::rounds && r * segments * outputs_per_thread < n; r++) visit(r);
  }
  /// Count positions of a segment from `first` on; zero after its end.
  template <int Count>
  TCNCA_HOST_DEVICE static void load_segment(A const* tile, segment const& s, int first,
                                             detail::array<value, Count>& x) {
    if constexpr (vectors<Count>) {
      if (is_aligned(s) && s.count == Count) {
        for_each_vector<Count>(s, [&](int at, auto first_lane, auto step) {
          auto const v = load<vector>(tile + at);
          unroll<0, vector>([&](auto j) { x[first_lane + j * step] = broadcast<1>(v.lane(j)); });
        });
        return;
      }
    }
    unroll<0, Count>([&](auto i) {
      x[i] = Count == 1 || first + i < s.count ? load<W>(tile + tiling::place(s.offset + (first + i) * s.step))
                                               : broadcast<W>(A(0));
    });
  }
  /// Stores Count positions of a segment from `first` on, all of which exist.
  template <int Count>
  TCNCA_HOST_DEVICE static void store_segment(A* tile, segment const& s, int first, detail::array<value, Count>& x) {
    if constexpr (vectors<Count>) {
      if (is_aligned(s)) {
        for_each_vector<Count>(s, [&](int at, auto first_lane, auto step) {
          pack<A, vector> v;
          unroll<0, vector>([&](auto j) { v.set_lane(j, x[first_lane + j * step].lane(0)); });
          store<vector>(tile + at, v);
        });
        return;
      }
    }
    unroll<0, Count>([&](auto i) { store<W>(tile + tiling::place(s.offset + (first + i) * s.step), x[i]); });
  }
  /// The rows of a table for `States` consecutive states.
  template <int States>
  TCNCA_HOST_DEVICE void load_rows(int table, int first_row, detail::array<value, States>& v) const {
    if constexpr (tiling::shared && packs == 1 && States == vector && N % vector == 0) {
      auto const all = load<vector>(const_cast<A const*>(shared_memory + table + first_row));
      unroll<0, States>([&](auto j) { v[j] = broadcast<W>(all.lane(j)); });
    } else {
      unroll<0, States>([&](auto j) { v[j] = load_row(table, first_row + j * packs); });
    }
  }
  /// Whether this thread's segment is processed as a whole: it has all positions, and the carry finds the state after
  /// the tile.
  TCNCA_HOST_DEVICE static bool is_whole(segment const& s, bool complete) {
    return s.count == outputs_per_thread && (!tiling::shared || complete || !s.ends_tile);
  }

  /// visit(n, constant<States>) for the states n, ..., n + States - 1: Policy.states_per_pass at a time, then one at a
  /// time.
  template <bool Unrolled, class Visit>
  TCNCA_HOST_DEVICE static void for_each_states(Visit visit) {
    constexpr int states = Policy.states_per_pass;
    if constexpr (Unrolled && N / states <= 4) {
      unroll<0, N / states>([&](auto i) { visit(constant<i * states>{}, constant<states>{}); });
      unroll<N / states * states, N>([&](auto n) { visit(n, constant<1>{}); });
    } else {
      int n = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
      for (; n + states <= N; n += states) visit(n, constant<states>{});
      if constexpr (N % states != 0) {
        for (; n < N; n++) visit(n, constant<1>{});
      }
    }
  }

  /// The recurrence over a tile of x: emit(segment, first, x, y) for the positions of each segment, in pieces, by one
  /// thread. Called by all threads, after a barrier. Stateful: the carried states are h itself, as state_in and
  /// state_out need it; else they are h / u, which saves a multiplication. prefetch(round) is called before each round.
  template <bool Reverse, bool Stateful, class Prefetch, class Emit>
  TCNCA_HOST_DEVICE void recurrence(A const* tile, int n, carry_of<A> const& carry, Prefetch prefetch,
                                    Emit emit) const {
    for_each_round(n, [&](int r) TCNCA_INLINE {
      segment const s = segment_of<Reverse>(r, n);
      prefetch(r);
      bool const complete = n == tiling::tile;
      carry.find_states([&](auto store) TCNCA_INLINE { end_states<Stateful>(tile, s, store); }, complete);
      if (is_whole(s, complete)) outputs<outputs_per_thread, Stateful>(tile, s, 0, carry, emit);
      else
        for (int i = 0; i < s.count; i++) outputs<1, Stateful>(tile, s, i, carry, emit);
    });
  }

 private:
  static constexpr int vector = min_of(int(16 / sizeof(A)), 4);
  /// Whether Count positions of a segment are accessed as vectors: neighbours in a tile.
  template <int Count>
  static constexpr bool vectors = tiling::shared&& channels == 1 && Count == outputs_per_thread&& Count % vector == 0;
  TCNCA_HOST_DEVICE static bool is_aligned(segment const& s) {
    return (s.step > 0 ? s.offset : s.offset + 1) % outputs_per_thread == 0;
  }
  /// visit(place in the tile, number in the segment, step to the next one) for the vectors of a whole aligned segment:
  /// their places differ from that of the first in some bits.
  template <int Count, class Visit>
  TCNCA_HOST_DEVICE static void for_each_vector(segment const& s, Visit visit) {
    int const first = tiling::place(s.step > 0 ? s.offset : s.offset + 1 - Count);
    unroll<0, Count / vector>([&](auto i) {
      if (s.step > 0) visit(first ^ (i * vector), constant<i * vector>{}, constant<1>{});
      else visit(first ^ (i * vector), constant<Count - 1 - i * vector>{}, constant<-1>{});
    });
  }
  /// visit(first element, constant<elements>) for what each thread copies.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_copy(int n, Visit visit) const {
    constexpr int part = max_of(W, vector);
    int i = group.rank() * part;
    for (; i + part <= n; i += group.size() * part) visit(i, constant<part>{});
    if constexpr (part > W) {
      for (; i < n; i++) visit(i, constant<1>{});
    }
  }

  /// store(row, state at the end of this thread's segment) for states of zero before it.
  template <bool Stateful, class Store>
  TCNCA_HOST_DEVICE void end_states(A const* tile, segment const& s, Store store) const {
    detail::array<value, outputs_per_thread> x;
    load_segment(tile, s, 0, x);
    for_each_states<true>([&](int n, auto states) {
      detail::array<value, int(states)> q, h;
      load_rows<states>(q_begin, row(n), q);
      unroll<0, states>([&](auto j) { h[j] = x[0]; });
      unroll<1, outputs_per_thread>([&](auto i) { unroll<0, states>([&](auto j) { h[j] = fma(q[j], h[j], x[i]); }); });
      unroll<0, states>([&](auto j) {
        if constexpr (Stateful) { h[j] = h[j] * load_row(u_begin, row(n + j)); }
        store(row(n + j), h[j].lane(0));
      });
    });
  }

  /// Count positions of this thread's segment: all of them, or one where the sequence ends within the segment.
  template <int Count, bool Stateful, class Emit>
  TCNCA_HOST_DEVICE void outputs(A const* tile, segment const& s, int first, carry_of<A> const& carry,
                                 Emit& emit) const {
    detail::array<value, Count> x, y;
    load_segment(tile, s, first, x);
    unroll<0, Count>([&](auto i) { y[i] = broadcast<W>(A(0)); });
    bool const ends_tile = s.ends_tile && first + Count == s.count;
    for_each_states<tiling::shared && Count != 1>(
        [&](int n, auto states) TCNCA_INLINE { add_states<states, Stateful>(n, ends_tile, carry, x, y); });
    emit(s, first, x, y);
  }

  /// Adds the outputs of the states n, ..., n + States - 1. Each state is a chain of dependent operations; several hide
  /// its latency.
  template <int States, bool Stateful, int Count>
  TCNCA_HOST_DEVICE void add_states(int n, bool ends_tile, carry_of<A> const& carry,
                                    detail::array<value const, Count>& x, detail::array<value, Count>& y) const {
    int const r = row(n);
    detail::array<value, States> h, q, u, w;
    load_rows<States>(q_begin, r, q);
    load_rows<States>(Stateful ? u_begin : uw_begin, r, u);
    if constexpr (Stateful) { load_rows<States>(w_begin, r, w); }
    unroll<0, States>([&](auto j) {
      if constexpr (!Stateful) { w[j] = u[j]; }
      h[j] = carry.load(r + j * packs);
    });
    unroll<0, Count>([&](auto i) {
      unroll<0, States>([&](auto j) { h[j] = fma(q[j], h[j], Stateful ? u[j] * x[i] : x[i]); });
      unroll<0, States>([&](auto j) { y[i] = fma(w[j], h[j], y[i]); });
    });
    unroll<0, States>([&](auto j) { carry.template store<Count == 1>(r + j * packs, h[j], ends_tile); });
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
