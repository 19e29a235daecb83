// The weight gradient of a convolution over one tile: sums[k] += sum_t g[t] x[t + look_ahead - k d].
#pragma once
#include "dilated.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {

// One thread's running sums of taps first .. first + N - 1. Few taps get several chains of sums each, to hide the latency of the adds.
template <int N, class A, int W>
struct tap_sums {
  static constexpr int chains = N >= 8 ? 1 : N >= 4 ? 2 : 4;
  array<array<pack<A, W>, chains>, N> sum;

  TCNCA_HOST_DEVICE explicit tap_sums(A const* at, int stride) {
    unroll<0, N>([&](auto k) TCNCA_INLINE {
      sum[k][0] = load<W>(at + k * stride);
      unroll<1, chains>([&](auto c) TCNCA_INLINE { sum[k][c] = broadcast<W>(A(0)); });
    });
  }
  TCNCA_HOST_DEVICE void save(A* at, int stride) const {
    unroll<0, N>([&](auto k) TCNCA_INLINE {
      pack<A, W> total = sum[k][0];
      unroll<1, chains>([&](auto c) TCNCA_INLINE { total = total + sum[k][c]; });
      store<W>(at + k * stride, total);
    });
  }
};

// Lanes outside of [first, last) set to zero.
template <class A, int W>
TCNCA_HOST_DEVICE pack<A, W> keep_lanes(pack<A, W> v, int first, int last) {
  if constexpr (W > 1) {
    if (first > 0 || last < W) {
      TCNCA_UNROLL
      for (int i = 0; i < W; i++)
        if (i < first || i >= last) v.set_lane(i, A(0));
    }
  }
  return v;
}

template <int N, int Run, class Group, class A, lanes Lanes>
TCNCA_HOST_DEVICE void correlate_taps(Group group, ring<A, Lanes> g, ring<A, Lanes> x, dilated_tile tile, int blocks,
                                      int first_tap, A* sums, int stride) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions();
  int const d = int(tile.dilation);
  uint32 const from = uint32(tile.first),
               origin = uint32(tile.first + tile.look_ahead) - uint32(first_tap) * tile.dilation;
  A* const mine_at = sums + first_tap * stride;
  tap_sums<N, A, Lanes.width> taps(mine_at, stride);

  for_each_run<Run, Lanes>(group, blocks, d, [&](int offset, int overlap, int p) TCNCA_INLINE {
    detail::array<value, Run> grad;
    unroll<0, Run>([&](auto m) TCNCA_INLINE {
      grad[m] = keep_lanes(g.load(from + uint32(offset + int(m) * d), p), overlap, Lanes.width);
    });
    // Each input serves every pair (output m, tap k) with m - k = j.
    unroll<0, N + Run - 1>([&](auto i) TCNCA_INLINE {
      constexpr int j = decltype(i)::value - (N - 1);
      value const in = x.load(origin + uint32(offset + j * d), p);
      unroll<(j > 0 ? j : 0), (j + N < Run ? j + N : Run)>([&](auto m) TCNCA_INLINE {
        auto& s = taps.sum[int(m) - j][int(m) % taps.chains];
        s = fma(grad[m], in, s);
      });
    });
  });

  share<Lanes, Group> const mine(group);
  int const step = mine.workers * P;
  for (int start = blocks * (Run * d) + mine.worker * P; start < tile.count; start += Run * step)
    unroll<0, Run>([&](auto m) TCNCA_INLINE {
      int const offset = start + int(m) * step;
      if (offset >= tile.count) return;
      int const valid = Lanes.along_length ? tile.count - offset : Lanes.width;
      value const grad = keep_lanes(g.load(from + uint32(offset), mine.p), 0, valid);
      unroll<0, N>([&](auto k) TCNCA_INLINE {
        auto& s = taps.sum[k][int(m) % taps.chains];
        s = fma(grad, keep_lanes(x.load(origin + uint32(offset) - uint32(int(k)) * tile.dilation, mine.p), 0, valid),
                s);
      });
    });
  taps.save(mine_at, stride);
}

// The same for whole packs of a tile, Run of them at a time, that need not share inputs: any dilation. Dilation as for dilated_sum.
template <int N, int Run, int Dilation, class A, lanes Lanes>
TCNCA_HOST_DEVICE void correlate_packs(ring<A, Lanes> g, ring<A, Lanes> x, dilated_tile tile, int first_tap, A* sums,
                                       int stride) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions();
  uint32 const origin = uint32(tile.first + tile.look_ahead) - uint32(first_tap) * tile.dilation;
  A* const at = sums + first_tap * stride;
  constexpr int span = round_up((N - 1) * Dilation, P);  // positions that the taps look back
  tap_sums<N, A, P> taps(at, stride);
  auto const add = [&](int start, auto packs) TCNCA_INLINE {
    A const* const grads = g.at(uint32(tile.first) + uint32(start), 0);
    detail::array<A const*, N> in;
    unroll<0, N>([&](auto k) TCNCA_INLINE {
      if constexpr (Dilation == 0) {
        in[k] = x.at(origin + uint32(start) - uint32(int(k)) * tile.dilation, 0);
      } else if constexpr (int(k) == 0) {
        in[0] = x.at(origin + uint32(start) - uint32(span), 0) + span;
      }
    });
    unroll<0, decltype(packs)::value>([&](auto m) TCNCA_INLINE {
      value const grad = load<P>(grads + int(m) * P);
      unroll<0, N>([&](auto k) TCNCA_INLINE {
        auto& s = taps.sum[k][int(m) % taps.chains];
        if constexpr (Dilation == 0) {
          s = fma(grad, load<P>(in[k] + int(m) * P), s);
        } else {
          s = fma(grad, lagged<decltype(k)::value * Dilation, true, A, P>(in[0] + int(m) * P), s);
        }
      });
    });
  };
  int start = 0;
  for (; start + Run * P <= tile.count; start += Run * P) add(start, constant<Run>{});
  for (; start < tile.count; start += P) add(start, constant<1>{});
  taps.save(at, stride);
}

}  // namespace detail

/// Adds the tile's part to this thread's own sums: those of tap k stand at sums + k * stride. Each thread sums its own items in a fixed
/// order. Taps outside first_tap .. last_tap are left alone. Does not sync. Dilation as for dilated_sum.
template <int Taps, int Run, int Dilation = 0, class Group, class A, lanes Lanes>
TCNCA_HOST_DEVICE void correlate(Group group, ring<A, Lanes> g, ring<A, Lanes> x, dilated_tile tile, A* sums,
                                 int stride) {
  constexpr int N = Taps < 8 ? Taps : 8, P = Lanes.positions();
  constexpr bool blocked = Lanes.margin >= Run * P && P > 1 && Group::size() == 1;
  int const d = int(tile.dilation);
  bool const runs = d >= P && d <= tile.count && (!blocked || d % P != 0);
  int const blocks = runs ? tile.count / (Run * d) : 0;
  if constexpr (blocked) {
    if (blocks == 0) {
      dilated_tile whole = tile;
      whole.count = tile.count / P * P;
      int k = tile.first_tap;
      for (; k + N <= tile.last_tap; k += N) detail::correlate_packs<N, Run, Dilation>(g, x, whole, k, sums, stride);
      if constexpr (N > 1) {
        for (; k < tile.last_tap; k++) detail::correlate_packs<1, Run, 0>(g, x, whole, k, sums, stride);
      }
      tile.first += whole.count, tile.count -= whole.count;
      if (tile.count == 0) return;
    }
  }
  int k = tile.first_tap;
  for (; k + N <= tile.last_tap; k += N) detail::correlate_taps<N, Run>(group, g, x, tile, blocks, k, sums, stride);
  if constexpr (N > 1) {
    for (; k < tile.last_tap; k++) detail::correlate_taps<1, Run>(group, g, x, tile, blocks, k, sums, stride);
  }
}

}  // namespace tcnca
