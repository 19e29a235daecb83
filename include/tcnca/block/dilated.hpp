// The sums of a dilated convolution over one tile: sum_k w[k] x[t + look_ahead - k d] for all positions t of the tile.
#pragma once
#include "ring.hpp"
#include "unroll.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// One tile of a convolution: outputs at positions [first, first + count). Output t reads t + look_ahead - k dilation
/// for the taps first_tap <= k < last_tap.
struct dilated_tile {
  index_t first;
  int count;
  index_t look_ahead;
  uint32 dilation;
  int first_tap, last_tap;
};

/// The taps of a convolution in the group's memory: tap k at tap + k * step, channels() elements each. bias may be
/// null.
template <class A>
struct dilated_taps {
  A const* tap;
  int step;  // negative to read the taps in reverse order
  A const* bias;
};

/// The share of a thread in a tile: pack `pack` of the positions worker, worker + workers, ... (in units of packs, or
/// of strided sets).
template <lanes Lanes, class Group>
struct thread_partition {
  int pack, worker, workers;
  TCNCA_HOST_DEVICE explicit thread_partition(Group group)
      : pack(group.rank() % Lanes.packs), worker(group.rank() / Lanes.packs), workers(group.size() / Lanes.packs) {}
};

/// Visits the strided sets of a tile. A strided set is `Outputs` packs a dilation apart, which share their inputs. The
/// first blocks * Outputs * d positions of a tile are split into such sets. visit(offset, overlap, pack): offset of the
/// set's first pack in the tile; the first `overlap` lanes of its packs also belong to the previous set.
template <int Outputs, lanes Lanes, class Group, class Visit>
TCNCA_HOST_DEVICE void for_each_strided_set(Group group, int blocks, int d, Visit visit) {
  constexpr int P = Lanes.positions();
  thread_partition<Lanes, Group> const part(group);
  int const phases = divide_up(d, P);
  int const block_step = part.workers / phases, phase_step = part.workers % phases;
  int block = part.worker / phases, phase = part.worker % phases;
  while (block < blocks) {
    int const start = phase * P, overlap = max_of(0, start + P - d);
    visit(block * (Outputs * d) + start - overlap, overlap, part.pack);
    block += block_step;
    phase += phase_step;
    if (phase >= phases) phase -= phases, block++;
  }
}

/// Rings of up to this many positions stay in the L1 cache, where repeated loads are cheap. For longer rings the
/// strided kernel loads each input once per set.
/// Zen 5, one thread, 128 sequences, forward at 16k | 131k in ms (2026-11-24): 1024 positions 1.00 | 11.9 (K 8 f 8 D
/// 5), 1.31 | 15.2 (K 17 f 16 D 4); 4096 1.03 | 11.8, 1.37 | 16.5; no limit 1.08 | 12.9, 1.44 | 20.4.
inline constexpr uint32 l1_ring_positions = 1024;

template <class A, lanes Lanes>
TCNCA_HOST_DEVICE pack<A, Lanes.width> load_tap(A const* tap, int p) {
  if constexpr (Lanes.along_length) {
    return broadcast<Lanes.width>(*tap);
  } else {
    return load<Lanes.width>(tap + p * Lanes.width);
  }
}

/// Taps that the short-dilation kernel unrolls together, and the positions that they look back, in whole packs.
template <int Taps>
inline constexpr int unrolled_taps = Taps <= 16 ? Taps : 16;
template <int Taps>
TCNCA_HOST_DEVICE constexpr int unrolled_span(int dilation, int width) {
  return round_up((unrolled_taps<Taps> - 1) * dilation, width);
}

/// The pack `Delay` positions before `at`, which is aligned to packs: one unaligned load, or two aligned loads and a
/// shift. An unaligned load that crosses a cache line takes two cycles; a shift competes with the multiply-adds for
/// their ports. With many taps every other one uses the load, unless neighbouring taps share their shifts.
/// Cycles per multiply-add, Zen 5, dilation 1, loads | shifts | both: 4 taps 1.03 | 0.67 | 0.99, 8 taps 1.05 | 0.75 |
/// 0.67, 17 taps 1.02 | 0.92 | 0.64.
template <int Delay, bool Shift, class A, int P>
TCNCA_HOST_DEVICE pack<A, P> load_delayed(A const* at) {
  if constexpr (Delay % P == 0 || !Shift) {
    return load<P>(at - Delay);
  } else {
    return shifted<P - Delay % P>(load<P>(at - Delay / P * P - P), load<P>(at - Delay / P * P));
  }
}

namespace detail {

/// Whether one thread may read `Outputs` consecutive packs of a ring without wrapping each.
template <int Outputs, lanes Lanes>
inline constexpr bool reads_consecutive_packs = Lanes.positions() > 1 && Lanes.overrun >= Outputs* Lanes.positions();

template <class A, lanes Lanes>
TCNCA_HOST_DEVICE pack<A, Lanes.width> load_bias(dilated_taps<A> w, int p) {
  return w.bias ? load_tap<A, Lanes>(w.bias, p) : broadcast<Lanes.width>(A(0));
}

/// All taps, a dilation shorter than a pack and known at compile time. A thread computes `Outputs` consecutive packs:
/// their inputs overlap and come from a few registers.
template <int Taps, int Outputs, int Dilation, class Group, class A, lanes Lanes, class Emit>
TCNCA_HOST_DEVICE void sum_short_dilation(Group group, ring<A, Lanes> x, dilated_taps<A> w, dilated_tile tile,
                                          Emit emit) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions(), chunk = unrolled_taps<Taps>, span = unrolled_span<Taps>(Dilation, P);
  thread_partition<Lanes, Group> const part(group);
  uint32 const origin = uint32(tile.first + tile.look_ahead);
  value const bias = load_bias<A, Lanes>(w, part.pack);
  for (int start = part.worker * Outputs * P; start < tile.count; start += part.workers * Outputs * P) {
    array<value, Outputs> sum;
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE { sum[m] = bias; });
    A const* tap = w.tap;
    uint32 from = origin + uint32(start) - uint32(span);
    auto const add = [&](auto n) TCNCA_INLINE {
      A const* const at = x.at(from, 0) + span;
      unroll<0, decltype(n)::value>([&](auto k) TCNCA_INLINE {
        value const weight = load_tap<A, Lanes>(tap, 0);
        unroll<0, Outputs>([&](auto m) TCNCA_INLINE {
          constexpr int delay = decltype(k)::value * Dilation;
          constexpr bool shift = Taps <= 4 || Dilation % 4 == 0 || decltype(k)::value % 2 == 0;
          value const in = load_delayed<delay, shift, A, P>(at + int(m) * P);
          sum[m] = fma(weight, in, sum[m]);
        });
        tap += w.step;
      });
      from -= uint32(chunk * Dilation);
    };
    for (int k = 0; k < Taps / chunk; k++) add(constant<chunk>{});
    add(constant<Taps % chunk>{});
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE { sum[m] = materialize(sum[m]); });
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE {
      if (start + int(m) * P < tile.count) emit(start + int(m) * P, 0, sum[m]);
    });
  }
}

/// All taps, a dilation of at least one pack. A thread computes a strided set: it keeps a window of `Outputs` inputs in
/// registers and loads one new input for each tap. Covers the first blocks * Outputs * d positions of the tile.
template <int Taps, int Outputs, class Group, class A, lanes Lanes, class Emit>
TCNCA_HOST_DEVICE void sum_strided(Group group, ring<A, Lanes> x, dilated_taps<A> w, dilated_tile tile, int blocks,
                                   Emit emit) {
  using value = pack<A, Lanes.width>;
  int const d = int(tile.dilation);
  uint32 const origin = uint32(tile.first + tile.look_ahead);
  value const bias = load_bias<A, Lanes>(w, thread_partition<Lanes, Group>(group).pack);
  for_each_strided_set<Outputs, Lanes>(group, blocks, d, [&](int offset, int, int p) TCNCA_INLINE {
    array<value, Outputs> sum, window;
    uint32 at = origin + uint32(offset);
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE { window[m] = x.load(at + uint32(int(m) * d), p), sum[m] = bias; });
    A const* tap = w.tap;
    auto const add = [&](auto steps, auto inputs) TCNCA_INLINE {
      constexpr int needed = decltype(inputs)::value;
      unroll<0, decltype(steps)::value>([&](auto k) TCNCA_INLINE {
        value const weight = load_tap<A, Lanes>(tap, p);
        unroll<0, Outputs>([&](auto m) TCNCA_INLINE {
          sum[m] = fma(weight, window[(int(m) + Outputs - int(k) % Outputs) % Outputs], sum[m]);
        });
        if constexpr (int(k) < needed) {
          at -= uint32(d);
          window[Outputs - 1 - int(k) % Outputs] = x.load(at, p);
        }
        tap += w.step;
      });
    };
    // No input is loaded after the last tap: where threads share a tile, that position may be uninitialized.
    if constexpr (Taps <= 2 * Outputs) {
      add(constant<Taps>{}, constant<Taps - 1>{});
    } else {
      constexpr int turns = (Taps - (Group::size() == 1 ? 0 : 1)) / Outputs, rest = Taps - turns * Outputs;
      for (int k = 0; k < turns; k++) add(constant<Outputs>{}, constant<Outputs>{});
      add(constant<rest>{}, constant<rest - 1>{});
    }
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE { emit(offset + int(m) * d, p, sum[m]); });
  });
}

/// Any taps, any dilation: packs from position `start` of the tile on, each input loaded once per tap. Serves tiles at
/// the ends of a sequence, dilations without a faster kernel, and what the strided kernel leaves.
template <int Taps, int Outputs, class Group, class A, lanes Lanes, class Emit>
TCNCA_HOST_DEVICE void sum_general(Group group, ring<A, Lanes> x, dilated_taps<A> w, dilated_tile tile, int start,
                                   Emit emit) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions();
  constexpr bool consecutive = reads_consecutive_packs<Outputs, Lanes>;
  thread_partition<Lanes, Group> const part(group);
  uint32 const origin = uint32(tile.first + tile.look_ahead);
  value const bias = load_bias<A, Lanes>(w, part.pack);
  int const step = (consecutive ? 1 : part.workers) * P;
  for (start += part.worker * (consecutive ? Outputs : 1) * P; start < tile.count;
       start += Outputs * part.workers * P) {
    array<value, Outputs> sum;
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE { sum[m] = bias; });
    uint32 at = origin + uint32(start) - uint32(tile.first_tap) * tile.dilation;
    A const* tap = w.tap + tile.first_tap * w.step;
    // Threads that share a tile read only packs of the tile: positions past its end may be uninitialized.
    [[maybe_unused]] int const present =
        Group::size() == 1 ? Outputs : min_of(Outputs, divide_up(tile.count - start, step));
    auto const add = [&]() TCNCA_INLINE {
      value const weight = load_tap<A, Lanes>(tap, part.pack);
      [[maybe_unused]] A const* const in = x.at(at, part.pack);
      unroll<0, Outputs>([&](auto m) TCNCA_INLINE {
        int const offset = Group::size() == 1 || int(m) < present ? int(m) * step : 0;
        value const v = consecutive ? load<Lanes.width>(in + int(m) * P) : x.load(at + uint32(offset), part.pack);
        sum[m] = fma(weight, v, sum[m]);
      });
      at -= tile.dilation;
      tap += w.step;
    };
    if (consecutive && Taps <= 8 && tile.first_tap == 0 && tile.last_tap == Taps)
      unroll<0, Taps <= 8 ? Taps : 0>([&](auto) TCNCA_INLINE { add(); });
    else
      for (int k = tile.first_tap; k < tile.last_tap; k++) add();
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE { sum[m] = materialize(sum[m]); });
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE {
      if (start + int(m) * step < tile.count) emit(start + int(m) * step, part.pack, sum[m]);
    });
  }
}

}  // namespace detail

/// Calls emit(offset, p, sum) for every pack of the tile. Called by all threads of the group; each pack is emitted by
/// one thread. Where lanes lie along the length, the last pack may extend past the tile and a pack may be emitted twice
/// with the same sums. A sum starts from the bias and adds the taps in ascending order, so it does not depend on the
/// tile. Reads only initialized positions of the ring; does not synchronize.
///
/// Outputs is the number of outputs that a thread computes together. Dilation is that of the tile if it is shorter than
/// a pack and known at compile time, else 0. emit is copied into the kernels, so that what it captures by value stays
/// in registers.
template <int Taps, int Outputs, int Dilation = 0, class Group, class A, lanes Lanes, class Emit>
TCNCA_HOST_DEVICE void dilated_sum(Group group, ring<A, Lanes> x, dilated_taps<A> w, dilated_tile tile, Emit emit) {
  constexpr int P = Lanes.positions();
  bool const all_taps = tile.first_tap == 0 && tile.last_tap == Taps;
  int start = 0;
  if constexpr (Dilation > 0) {
    if (all_taps) return detail::sum_short_dilation<Taps, Outputs, Dilation>(group, x, w, tile, emit);
  } else {
    int const d = int(tile.dilation);
    constexpr bool consecutive = detail::reads_consecutive_packs<Outputs, Lanes>;
    bool const strided =
        all_taps && d >= P && d <= tile.count && (!consecutive || d % P != 0 || x.mask >= l1_ring_positions);
    int const blocks = strided ? tile.count / (Outputs * d) : 0;
    if (blocks > 0) {
      detail::sum_strided<Taps, Outputs>(group, x, w, tile, blocks, emit);
      start = blocks * (Outputs * d);
    }
  }
  if (start < tile.count) detail::sum_general<Taps, Outputs>(group, x, w, tile, start, emit);
}

}  // namespace tcnca
