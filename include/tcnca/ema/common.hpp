// What the agents of an EMA share: its coefficients, its memory, its tiles, and the recurrence over one tile.
#pragma once
#include "../block/activation.hpp"
#include "../block/scan.hpp"
#include "../block/unroll.hpp"
#include "tile.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of an EMA: [channels, states] (bidirectional: 2 channels, the causal ones first), omega [channels].
template <class A>
struct ema_parameters {
  tensor_view<A const, 2> delta, alpha, beta, gamma;
  tensor_view<A const, 1> omega;
};

namespace detail {

/// sqrt(1 / states), by Newton's method.
constexpr double root_of_inverse(int states) {
  double s = 1;
  for (int i = 0; i < 60; i++) s = 0.5 * (s + 1 / (states * s));
  return s;
}
template <int States>
inline constexpr double ema_scale = root_of_inverse(States);

/// What the recurrence is made of: h <- q h + u x, y = sum of w h.
template <class A, int W>
struct ema_coefficients {
  using value = pack<A, W>;
  value p, a, beta, gamma;
  value q, u, w;

  /// Of `existing` channels from row on, one state.
  TCNCA_HOST_DEVICE ema_coefficients(ema_parameters<A> const& from, index_t row, index_t state, int existing, A scale) {
    auto const read = [&](tensor_view<A const, 2> const& v) {
      return load_some<W>(v.at(row, state), v.stride[0], existing);
    };
    p = sigmoid(read(from.delta)), a = sigmoid(read(from.alpha)), beta = read(from.beta), gamma = read(from.gamma);
    q = broadcast<W>(A(1)) - p * a;
    u = p * beta;
    w = gamma * broadcast<W>(scale);
  }
};

/// A group's fast memory, in elements of A from its beginning.
template <class Tiling>
struct ema_memory {
  static constexpr int states = Tiling::states, table = states * Tiling::channels;
  // tables [state][channel]: the decay of a step, of a run, and its derivative; u, w, their product
  static constexpr int q = 0, run_decay = table, run_derivative = 2 * table, u = 3 * table, w = 4 * table,
                       uw = 5 * table;
  static constexpr int omega = 6 * table, first = omega + Tiling::channels;
};

/// One group's view of an EMA: its memory, its coefficients, its threads' shares.
template <class Group, element T, ema_shape Shape, ema_policy Policy, class Scan>
struct ema_group {
  using tiling = ema_tiling<Group::size(), T, Shape, Policy>;
  using A = accumulate_t<T>;
  using value = pack<A, tiling::width>;
  using memory = ema_memory<tiling>;
  static constexpr int N = Shape.states, W = tiling::width, channels = tiling::channels, run = tiling::run;
  static constexpr bool shared = Group::size() > 1;
  static constexpr int next_slot = tiling::packs * tiling::workers;  // from a state to the next in the table of a scan

  Group group;
  A* shared_memory;
  int pack_, worker_;

  TCNCA_HOST_DEVICE ema_group(Group g, A* shared_memory)
      : group(g), shared_memory(shared_memory), pack_(g.rank() % tiling::packs), worker_(g.rank() / tiling::packs) {}

  /// Items: some channels of one sequence each.
  TCNCA_HOST_DEVICE static constexpr index_t items(index_t batch, index_t all_channels) {
    return batch * divide_up(all_channels, index_t(channels));
  }

  /// Row n * packs + p of a table of packs.
  TCNCA_HOST_DEVICE A* at(int table, int row) const { return shared_memory + table + row * W; }
  TCNCA_HOST_DEVICE value get(int table, int row) const { return load<W>(const_cast<A const*>(at(table, row))); }
  TCNCA_HOST_DEVICE void put(int table, int row, value v) const { store<W>(at(table, row), v); }
  TCNCA_HOST_DEVICE int row(int state) const { return state * tiling::packs + pack_; }

  /// visit(row, state, first channel, channels that exist) for all rows, each by one thread.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_row(int existing, Visit visit) const {
    for (int r = group.rank(); r < N * tiling::packs; r += group.size()) {
      int const c = r % tiling::packs * W;
      visit(r, r / tiling::packs, c, max_of(0, min_of(W, existing - c)));
    }
  }

  /// The coefficients of one half to fast memory; zero for channels that do not exist. Does not sync.
  TCNCA_HOST_DEVICE void load_coefficients(ema_parameters<A> const& from, index_t channel, int existing,
                                           index_t half_row) const {
    for_each_row(existing, [&](int r, int n, int c, int count) {
      index_t const first = count > 0 ? channel + c : channel;
      ema_coefficients<A, W> const k(from, half_row + first, n, count, A(ema_scale<N>));
      put(memory::q, r, k.q), put(memory::u, r, k.u), put(memory::w, r, k.w), put(memory::uw, r, k.u * k.w);
      if constexpr (shared) {
        dual<value> decay{k.q, broadcast<W>(A(1))}, power = decay;
        for (int i = 1; i < run; i++) power = power * decay;
        put(memory::run_decay, r, power.value), put(memory::run_derivative, r, power.derivative);
      }
    });
    if constexpr (Shape.skip) {
      for (int c = group.rank(); c < channels; c += group.size())
        shared_memory[memory::omega + c] = c < existing ? *from.omega.at(channel + c) : A(0);
    }
  }
  TCNCA_HOST_DEVICE value omega() const { return get(memory::omega, pack_); }

  /// One element for each state and channel, from or to [batch, channels, states].
  TCNCA_HOST_DEVICE static value load_state(sequence_view<A const> const& state, index_t batch, index_t channel, int n,
                                            int count) {
    return count > 0 ? load_some<W>(state.at(batch, channel, n), state.stride[1], count) : broadcast<W>(A(0));
  }
  TCNCA_HOST_DEVICE static void store_state(sequence_view<A> const& state, index_t batch, index_t channel, int n,
                                            int count, value v) {
    if (count > 0) store_some<W>(state.at(batch, channel, n), state.stride[1], count, v);
  }

  TCNCA_HOST_DEVICE void copy(A const* from, A* to, int n) const {
    constexpr int vector_elements = W > 1 ? W : 1;
    for (int i = group.rank() * vector_elements; i < n; i += group.size() * vector_elements)
      store<vector_elements>(to + i, load<vector_elements>(from + i));
  }

  /// Visits the tiles of a sequence in the order of time or against it.
  template <bool Reverse, class Visit>
  TCNCA_HOST_DEVICE static void for_each_tile(index_t length, Visit visit) {
    index_t const tiles = divide_up(length, index_t(tiling::tile));
    for (index_t i = 0; i < tiles; i++) {
      index_t const first = (Reverse ? tiles - 1 - i : i) * tiling::tile;
      visit(first, int(min_of(index_t(tiling::tile), length - first)));
    }
  }

  /// Where the tile begins that is visited next; may lie outside of the sequence.
  template <bool Reverse>
  TCNCA_HOST_DEVICE static index_t after(index_t first, int n) {
    return Reverse ? first - tiling::tile : first + n;
  }

  /// The run of this thread in a tile of n positions: where its elements lie in the tile, in the order of the walk.
  struct share {
    int offset, step, count;
    bool last;  // it ends the tile
  };
  template <bool Reverse>
  TCNCA_HOST_DEVICE share share_of(int r, int n) const {
    int const begin = (r * tiling::workers + worker_) * run;
    int const count = worker_ < tiling::workers ? max_of(0, min_of(run, n - begin)) : 0;
    int const slot = Reverse ? n - 1 - begin : begin;
    return {slot * channels + pack_ * W, Reverse ? -channels : channels, count, count > 0 && begin + count == n};
  }
  /// Positions of a run from `first` on; zeros behind its end.
  template <int Count>
  TCNCA_HOST_DEVICE static void load_run(A const* tile, share const& mine, int first, detail::array<value, Count>& x) {
    unroll<0, Count>([&](auto i) {
      x[i] = Count == 1 || first + i < mine.count ? load<W>(tile + mine.offset + (first + i) * mine.step)
                                                  : broadcast<W>(A(0));
    });
  }

  /// The recurrence over a tile of x: emit(place in the tile, x, y) for each of its positions, by one thread.
  /// carry [row]: the states before the tile, and after it. Exact: they are h itself, and a cut leaves no trace where one thread walks the
  /// sequence; else h / u, one multiplication less. table and scratch: what the scan needs. Called by all threads, between barriers.
  template <bool Reverse, bool Exact, class Prepare, class Emit>
  TCNCA_HOST_DEVICE void recurrence(A const* tile, int n, int carry, int table, int scratch, Prepare prepare,
                                    Emit emit) const {
    for (int r = 0; r < Policy.runs; r++) {
      share const mine = share_of<Reverse>(r, n);
      if (!shared && mine.count == 0) break;
      prepare(r);
      if constexpr (shared) {
        end_states<Exact>(tile, mine, table);
        group.sync();
        scan_rows<tiling::workers, Scan>(
            group, spread_table<A>{shared_memory + table}, N * tiling::packs, shared_memory + scratch,
            [&](int i) { return shared_memory[memory::run_decay + i]; },
            [&](int i) { return shared_memory[carry + i]; });
        group.sync();
      }
      if (mine.count == run) average_part<run, Exact>(tile, mine, 0, carry, table, emit);
      else
        for (int i = 0; i < mine.count; i++) average_part<1, Exact>(tile, mine, i, carry, table, emit);
    }
  }

 private:
  /// The states that this thread's run would end with, had there been nothing before it.
  template <bool Exact>
  TCNCA_HOST_DEVICE void end_states(A const* tile, share const& mine, int table) const {
    if (worker_ >= tiling::workers) return;
    detail::array<value, run> x;
    load_run(tile, mine, 0, x);
    A const* k = at(memory::q, pack_);
#if defined(__CUDA_ARCH__)
#pragma unroll 2
#endif
    for (int s = 0; s < N; s++, k += channels) {
      value const q = load<W>(k);
      value h = x[0];
      unroll<1, run>([&](auto i) { h = fma(q, h, x[i]); });
      if (Exact) h = h * load<W>(k + memory::u);
      spread_table<A>{shared_memory + table}.store(row(s) * tiling::workers + worker_, h.lane(0));
    }
  }

  /// Count positions of this thread's run: all of them, or a single one where the sequence ends within it.
  template <int Count, bool Exact, class Emit>
  TCNCA_HOST_DEVICE void average_part(A const* tile, share const& mine, int first, int carry, int table,
                                      Emit& emit) const {
    detail::array<value, Count> x, y;
    load_run(tile, mine, first, x);
    unroll<0, Count>([&](auto i) { y[i] = broadcast<W>(A(0)); });
    int s = 0;
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
    for (; s + Policy.together <= N; s += Policy.together)
      average_states<Policy.together, Exact>(mine, first, s, x, y, carry, table);
    if constexpr (N % Policy.together != 0) {
      for (; s < N; s++) average_states<1, Exact>(mine, first, s, x, y, carry, table);
    }
    unroll<0, Count>([&](auto i) { emit(mine.offset + (first + i) * mine.step, x[i], y[i]); });
  }

  /// Those of States states from s on: each is a chain of its own, and one alone would wait for itself.
  template <int States, bool Exact, int Count>
  TCNCA_HOST_DEVICE void average_states(share const& mine, int first, int s, detail::array<value const, Count>& x,
                                        detail::array<value, Count>& y, int carry, int table) const {
    bool const ends = !shared || (mine.last && first + Count == mine.count);
    spread_table<A> const slots{shared_memory + table};
    A* const k = at(memory::q, row(s));
    A* const c = at(carry, row(s));
    int const slot = row(s) * tiling::workers + worker_;
    detail::array<value, States> h, q, u, w;
    unroll<0, States>([&](auto j) {
      q[j] = load<W>(k + j * channels), u[j] = load<W>(k + (Exact ? memory::u : memory::uw) + j * channels);
      w[j] = Exact ? load<W>(k + memory::w + j * channels) : u[j];
      if constexpr (shared) {
        h[j] = broadcast<W>(slots.load(slot + j * next_slot));
      } else {
        h[j] = load<W>(const_cast<A const*>(c + j * channels));
      }
    });
    unroll<0, Count>([&](auto i) {
      unroll<0, States>([&](auto j) { h[j] = fma(q[j], h[j], Exact ? u[j] * x[i] : x[i]); });
      unroll<0, States>([&](auto j) { y[i] = fma(w[j], h[j], y[i]); });
    });
    unroll<0, States>([&](auto j) {
      if constexpr (shared && Count == 1) { slots.store(slot + j * next_slot, h[j].lane(0)); }
      if (ends) store<W>(c + j * channels, h[j]);
    });
  }
};

}  // namespace detail
}  // namespace tcnca
