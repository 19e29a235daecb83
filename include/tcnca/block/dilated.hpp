// The dilated sums of a convolution over one tile: sum_k w[k] x[t + lead - k d] for the positions t of the tile.
#pragma once
#include "ring.hpp"
#include "unroll.hpp"

namespace tcnca {

/// One convolution over one tile: `count` outputs from position `first`; output t reads t + lead - k dilation, taps first_tap <= k < last_tap.
struct dilated_tile {
  index first;
  int count;
  index lead;
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
  TCNCA_HOST_DEVICE explicit share(Group g) : p(g.rank() % Lanes.packs), worker(g.rank() / Lanes.packs), workers(g.size() / Lanes.packs) {}
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
    int const start = phase * P, overlap = max(0, start + P - d);
    visit(block * (Run * d) + start - overlap, overlap, mine.p);
    block += block_step;
    phase += phase_step;
    if (phase >= phases) phase -= phases, block++;
  }
}

template <class A, lanes Lanes>
TCNCA_HOST_DEVICE pack<A, Lanes.width> load_tap(A const* tap, int p) {
  if constexpr (Lanes.along_length) return broadcast<Lanes.width>(*tap);
  else return load<Lanes.width>(tap + p * Lanes.width);
}

/// Run + 1 neighbouring packs of a ring in registers, for dilations shorter than a pack: what lies between two of them is shifted out in one
/// instruction, where a load would straddle two cache lines.
template <int Run, class A, lanes Lanes>
struct neighbours {
  static constexpr bool usable = Lanes.along_length && has_shifted<A, Lanes.width>;
  static constexpr int P = Lanes.positions();
  ring<A, Lanes> x;
  uint32 from;  // position of packs[1], less what has been passed
  int passed;   // whole packs gone back
  pack<A, Lanes.width> packs[Run + 1];

  TCNCA_HOST_DEVICE neighbours(ring<A, Lanes> r, uint32 position, int lag) : x(r), from(position), passed(lag / P) {
    unroll<0, Run + 1>([&](auto j) TCNCA_INLINE { packs[j] = x.load(from + uint32((int(j) - 1 - passed) * P), 0); });
  }
  /// Goes back to a greater lag.
  TCNCA_HOST_DEVICE void reach(int lag) {
    while (passed < lag / P) {
      unroll<0, Run>([&](auto j) TCNCA_INLINE { packs[Run - j] = packs[Run - 1 - j]; });
      passed++;
      packs[0] = x.load(from - uint32((passed + 1) * P), 0);
    }
  }
  /// The samples `lag` before position + m P.
  TCNCA_HOST_DEVICE pack<A, Lanes.width> at(int m, int lag) const { return shifted(packs[m], packs[m + 1], P - lag % P); }
};

/// Calls emit(offset, p, sum) for every pack of the tile, each by one thread; where the lanes lie along the length, the last pack may
/// run past the tile and a pack may come twice with the same sums. Sums start from the bias and take the taps in rising order, always,
/// so a position's sum does not depend on the tile it is in. Reads only what is in the ring; does not sync.
template <int Taps, int Run, class Group, class A, lanes Lanes, class Emit>
TCNCA_HOST_DEVICE void dilated_sum(Group group, ring<A, Lanes> x, dilated_taps<A> w, dilated_tile tile, Emit emit) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions();
  share<Lanes, Group> const mine(group);
  int const d = int(tile.dilation);
  uint32 const origin = uint32(tile.first + tile.lead);
  value const bias = w.bias ? load_tap<A, Lanes>(w.bias, mine.p) : broadcast<Lanes.width>(A(0));

  // Whole runs: every input is loaded once for Run outputs. A window of Run inputs turns in registers, one new input a tap.
  bool const whole = tile.first_tap == 0 && tile.last_tap == Taps && d >= P && d <= tile.count;
  int const blocks = whole ? tile.count / (Run * d) : 0;
  for_each_run<Run, Lanes>(group, blocks, d, [&](int offset, int, int p) TCNCA_INLINE {
    value sum[Run], window[Run];
    uint32 at = origin + uint32(offset);
    unroll<0, Run>([&](auto m) TCNCA_INLINE { window[m] = x.load(at + uint32(int(m) * d), p), sum[m] = bias; });
    A const* tap = w.tap;
    auto const turn = [&](auto steps) TCNCA_INLINE {
      unroll<0, decltype(steps)::value>([&](auto k) TCNCA_INLINE {
        value const weight = load_tap<A, Lanes>(tap, p);
        unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = fma(weight, window[(int(m) + Run - int(k) % Run) % Run], sum[m]); });
        at -= uint32(d);
        window[Run - 1 - int(k) % Run] = x.load(at, p);
        tap += w.step;
      });
    };
    if constexpr (Taps <= 2 * Run) {
      turn(constant<Taps>{});
    } else {
      for (int k = 0; k < Taps / Run; k++) turn(constant<Run>{});
      turn(constant<Taps % Run>{});
    }
    unroll<0, Run>([&](auto m) TCNCA_INLINE { emit(offset + int(m) * d, p, sum[m]); });
  });

  int start = blocks * (Run * d) + mine.worker * P;
  if constexpr (neighbours<Run, A, Lanes>::usable) {
    for (; d < P && start + Run * P <= tile.count; start += Run * P) {
      value sum[Run];
      unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = bias; });
      neighbours<Run, A, Lanes> in(x, origin + uint32(start), tile.first_tap * d);
      A const* tap = w.tap + tile.first_tap * w.step;
      for (int k = tile.first_tap; k < tile.last_tap; k++, tap += w.step) {
        value const weight = load_tap<A, Lanes>(tap, 0);
        in.reach(k * d);
        unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = fma(weight, in.at(m, k * d), sum[m]); });
      }
      unroll<0, Run>([&](auto m) TCNCA_INLINE { emit(start + int(m) * P, 0, sum[m]); });
    }
  }

  // The rest, and tiles at an end of the sequence: neighbouring packs, any range of taps.
  for (; start < tile.count; start += Run * mine.workers * P) {
    int const step = mine.workers * P;
    value sum[Run];
    unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = bias; });
    uint32 at = origin + uint32(start) - uint32(tile.first_tap) * tile.dilation;
    A const* tap = w.tap + tile.first_tap * w.step;
    for (int k = tile.first_tap; k < tile.last_tap; k++) {
      value const weight = load_tap<A, Lanes>(tap, mine.p);
      unroll<0, Run>([&](auto m) TCNCA_INLINE { sum[m] = fma(weight, x.load(at + uint32(int(m) * step), mine.p), sum[m]); });
      at -= tile.dilation;
      tap += w.step;
    }
    unroll<0, Run>([&](auto m) TCNCA_INLINE {
      if (start + int(m) * step < tile.count) emit(start + int(m) * step, mine.p, sum[m]);
    });
  }
}

}  // namespace tcnca
