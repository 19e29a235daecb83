// The dilated sums of a convolution over one tile: sum_k w[k] x[t + look_ahead - k d] for the positions t of the tile.
#pragma once
#include "ring.hpp"
#include "unroll.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// One convolution over one tile: `count` outputs from position `first`; output t reads t + look_ahead - k dilation, taps first_tap <= k < last_tap.
struct dilated_tile {
  index_t first;
  int count;
  index_t look_ahead;
  uint32 dilation;
  int first_tap, last_tap;
};

/// The taps of a convolution in fast memory: tap k at tap + k * step, each channels() elements (one where the lanes lie along the length).
template <class A>
struct dilated_taps {
  A const* tap;
  int step;  // negative to read them in reverse
  A const* bias;
};

/// The part of a tile's work that falls to one thread: it keeps to pack `p` of every `workers`-th item from `worker`.
template <lanes Lanes, class Group>
struct share {
  int p, worker, workers;
  TCNCA_HOST_DEVICE explicit share(Group g)
      : p(g.rank() % Lanes.packs), worker(g.rank() / Lanes.packs), workers(g.size() / Lanes.packs) {}
};

/// Walks the runs of a tile: Run outputs a dilation apart share their inputs. blocks * Run * d positions are cut in runs; the rest is left.
/// visit(offset, overlap): offset of the run's first pack in the tile; overlap: its lanes below this number belong to the run before.
template <int Run, lanes Lanes, class Group, class Visit>
TCNCA_HOST_DEVICE void for_each_run(Group group, int blocks, int d, Visit visit) {
  constexpr int P = Lanes.positions();
  share<Lanes, Group> const mine(group);
  int const phases = divide_up(d, P);
  int const block_step = mine.workers / phases, phase_step = mine.workers % phases;
  int block = mine.worker / phases, phase = mine.worker % phases;
  while (block < blocks) {
    int const start = phase * P, overlap = max_of(0, start + P - d);
    visit(block * (Run * d) + start - overlap, overlap, mine.p);
    block += block_step;
    phase += phase_step;
    if (phase >= phases) phase -= phases, block++;
  }
}

/// Rings up to this many positions are read from the first cache however often; from longer ones each input is loaded once for a run.
/// Zen 5, one thread, 128 sequences, forward at 16k | 131k in ms (2026-11-24): 1024 positions 1.00 | 11.9 (K 8 f 8 D 5), 1.31 | 15.2
/// (K 17 f 16 D 4); 4096 1.03 | 11.8, 1.37 | 16.5; no limit 1.08 | 12.9, 1.44 | 20.4.
inline constexpr uint32 cached_ring = 1024;

template <class A, lanes Lanes>
TCNCA_HOST_DEVICE pack<A, Lanes.width> load_tap(A const* tap, int p) {
  if constexpr (Lanes.along_length) {
    return broadcast<Lanes.width>(*tap);
  } else {
    return load<Lanes.width>(tap + p * Lanes.width);
  }
}

/// Taps that are unrolled together for a dilation shorter than a pack, and the positions that they span, in whole packs.
template <int Taps>
inline constexpr int dilated_chunk = Taps <= 16 ? Taps : 16;
template <int Taps>
TCNCA_HOST_DEVICE constexpr int dilated_span(int dilation, int width) {
  return round_up((dilated_chunk<Taps> - 1) * dilation, width);
}

/// What lies `Lag` positions before pack m of those at `at`. A load that straddles two lines takes two turns, a shift competes with the
/// multiply-adds: of many taps, every other one takes the load, unless neighbours share their shifts (cycles a multiply-add, Zen 5, dilation 1, loads | shifts | both:
/// 4 taps 1.03 | 0.67 | 0.99, 8 taps 1.05 | 0.75 | 0.67, 17 taps 1.02 | 0.92 | 0.64).
template <int Lag, bool Shift, class A, int P>
TCNCA_HOST_DEVICE pack<A, P> lagged(A const* at) {
  if constexpr (Lag % P == 0 || !Shift) {
    return load<P>(at - Lag);
  } else {
    return shifted<P - Lag % P>(load<P>(at - Lag / P * P - P), load<P>(at - Lag / P * P));
  }
}

/// Calls emit(offset, p, sum) for every pack of the tile, each by one thread; where the lanes lie along the length, the last pack may
/// run past the tile and a pack may come twice with the same sums. Sums start from the bias and take the taps in rising order, always,
/// so a position's sum does not depend on the tile it is in. Reads only what is in the ring; does not sync.
/// Dilation: that of the tile if it is shorter than a pack and known at compile time, else 0.
template <int Taps, int Run, int Dilation = 0, class Group, class A, lanes Lanes, class Emit>
TCNCA_HOST_DEVICE void dilated_sum(Group group, ring<A, Lanes> x, dilated_taps<A> w, dilated_tile tile, Emit emit) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions();
  constexpr bool blocked = Lanes.margin >= Run * P && P > 1;  // Run packs may be read at once
  share<Lanes, Group> const mine(group);
  int const d = int(tile.dilation);
  uint32 const origin = uint32(tile.first + tile.look_ahead);
  value const bias = w.bias ? load_tap<A, Lanes>(w.bias, mine.p) : broadcast<Lanes.width>(A(0));
  bool const all_taps = tile.first_tap == 0 && tile.last_tap == Taps;
  int start = 0;

  if constexpr (Dilation > 0) {
    constexpr int chunk = dilated_chunk<Taps>, span = dilated_span<Taps>(Dilation, P);
    for (start = all_taps ? mine.worker * Run * P : 0; all_taps && start < tile.count;
         start += mine.workers * Run * P) {
      detail::array<value, Run> sum;
      unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = bias; });
      A const* tap = w.tap;
      uint32 from = origin + uint32(start) - uint32(span);
      auto const add = [&](auto n) TCNCA_INLINE {
        A const* const at = x.at(from, 0) + span;
        unroll<0, decltype(n)::value>([&](auto k) TCNCA_INLINE {
          value const weight = load_tap<A, Lanes>(tap, 0);
          unroll<0, Run>([&](auto m) TCNCA_INLINE {
            constexpr int lag = decltype(k)::value * Dilation;
            constexpr bool shift = Taps <= 4 || Dilation % 4 == 0 || decltype(k)::value % 2 == 0;
            value const in = lagged<lag, shift, A, P>(at + int(m) * P);
            sum[m] = fma(weight, in, sum[m]);
          });
          tap += w.step;
        });
        from -= uint32(chunk * Dilation);
      };
      for (int k = 0; k < Taps / chunk; k++) add(constant<chunk>{});
      add(constant<Taps % chunk>{});
      unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = materialize(sum[m]); });
      unroll<0, Run>([&](auto m) TCNCA_INLINE {
        if (start + int(m) * P < tile.count) emit(start + int(m) * P, 0, sum[m]);
      });
    }
  } else {
    // Whole runs: every input is loaded once for Run outputs. A window of Run inputs turns in registers, one new input a tap.
    bool const runs = all_taps && d >= P && d <= tile.count && (!blocked || d % P != 0 || x.mask >= cached_ring);
    int const blocks = runs ? tile.count / (Run * d) : 0;
    for_each_run<Run, Lanes>(group, blocks, d, [&](int offset, int, int p) TCNCA_INLINE {
      detail::array<value, Run> sum, window;
      uint32 at = origin + uint32(offset);
      unroll<0, Run>([&](auto m) TCNCA_INLINE { window[m] = x.load(at + uint32(int(m) * d), p), sum[m] = bias; });
      A const* tap = w.tap;
      auto const turn = [&](auto steps, auto inputs) TCNCA_INLINE {
        constexpr int needed = decltype(inputs)::value;
        unroll<0, decltype(steps)::value>([&](auto k) TCNCA_INLINE {
          value const weight = load_tap<A, Lanes>(tap, p);
          unroll<0, Run>(
              [&](auto m) TCNCA_INLINE { sum[m] = fma(weight, window[(int(m) + Run - int(k) % Run) % Run], sum[m]); });
          if constexpr (int(k) < needed) {
            at -= uint32(d);
            window[Run - 1 - int(k) % Run] = x.load(at, p);
          }
          tap += w.step;
        });
      };
      // No input is loaded after the last tap: where threads share a tile, that position may be uninitialised.
      if constexpr (Taps <= 2 * Run) {
        turn(constant<Taps>{}, constant<Taps - 1>{});
      } else {
        constexpr int turns = (Taps - (Group::size() == 1 ? 0 : 1)) / Run, rest = Taps - turns * Run;
        for (int k = 0; k < turns; k++) turn(constant<Run>{}, constant<Run>{});
        turn(constant<rest>{}, constant<rest - 1>{});
      }
      unroll<0, Run>([&](auto m) TCNCA_INLINE { emit(offset + int(m) * d, p, sum[m]); });
    });
    start = blocks * (Run * d);
  }

  // The rest, and tiles at an end of the sequence: neighbouring packs, any range of taps.
  int const step = (blocked ? 1 : mine.workers) * P;
  for (start += mine.worker * (blocked ? Run : 1) * P; start < tile.count; start += Run * mine.workers * P) {
    detail::array<value, Run> sum;
    unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = bias; });
    uint32 at = origin + uint32(start) - uint32(tile.first_tap) * tile.dilation;
    A const* tap = w.tap + tile.first_tap * w.step;
    // Threads that share a tile read only packs of the tile: positions past its end may be uninitialised.
    [[maybe_unused]] int const present = Group::size() == 1 ? Run : min_of(Run, divide_up(tile.count - start, step));
    auto const add = [&]() TCNCA_INLINE {
      value const weight = load_tap<A, Lanes>(tap, mine.p);
      [[maybe_unused]] A const* const in = x.at(at, mine.p);
      unroll<0, Run>([&](auto m) TCNCA_INLINE {
        int const away = Group::size() == 1 || int(m) < present ? int(m) * step : 0;
        value const v = blocked ? load<Lanes.width>(in + int(m) * P) : x.load(at + uint32(away), mine.p);
        sum[m] = fma(weight, v, sum[m]);
      });
      at -= tile.dilation;
      tap += w.step;
    };
    if (blocked && Dilation == 0 && Taps <= 8 && all_taps)
      unroll<0, Taps <= 8 ? Taps : 0>([&](auto) TCNCA_INLINE { add(); });
    else
      for (int k = tile.first_tap; k < tile.last_tap; k++) add();
    unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = materialize(sum[m]); });
    unroll<0, Run>([&](auto m) TCNCA_INLINE {
      if (start + int(m) * step < tile.count) emit(start + int(m) * step, mine.p, sum[m]);
    });
  }
}

}  // namespace tcnca
