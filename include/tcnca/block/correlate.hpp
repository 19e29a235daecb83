// The weight gradient of a dilated convolution over one tile: sums[k] += sum_t g[t] x[t + look_ahead - k d].
#pragma once
#include "dilated.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {

/// One thread's running sums for N taps. Few taps get several independent sums each, to hide the latency of the
/// additions.
template <int N, class A, int W>
struct tap_sums {
  static constexpr int chains = N >= 8 ? 1 : N >= 4 ? 2 : 4;
  array<array<pack<A, W>, chains>, N> sum;

  TCNCA_HOST_DEVICE explicit tap_sums(A const* from, int stride) {
    unroll<0, N>([&](auto k) TCNCA_INLINE {
      sum[k][0] = load<W>(from + k * stride);
      unroll<1, chains>([&](auto c) TCNCA_INLINE { sum[k][c] = broadcast<W>(A(0)); });
    });
  }
  TCNCA_HOST_DEVICE void save(A* to, int stride) const {
    unroll<0, N>([&](auto k) TCNCA_INLINE {
      pack<A, W> total = sum[k][0];
      unroll<1, chains>([&](auto c) TCNCA_INLINE { total = total + sum[k][c]; });
      store<W>(to + k * stride, total);
    });
  }
};

/// v with the lanes outside of [first, last) set to zero.
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

/// N taps from first_tap on, any dilation: first `blocks` blocks of strided sets, which share their inputs, then the
/// other packs of the tile.
template <int N, int Outputs, class Group, class A, lanes Lanes>
TCNCA_NOINLINE void correlate_general(Group group, ring<A, Lanes> g, ring<A, Lanes> x, dilated_tile tile, int blocks,
                                      int first_tap, A* sums, int stride) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions();
  int const d = int(tile.dilation);
  uint32 const from = uint32(tile.first),
               origin = uint32(tile.first + tile.look_ahead) - uint32(first_tap) * tile.dilation;
  sums += first_tap * stride;
  tap_sums<N, A, Lanes.width> taps(sums, stride);

  for_each_strided_set<Outputs, Lanes>(group, blocks, d, [&](int offset, int overlap, int p) TCNCA_INLINE {
    array<value, Outputs> grad;
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE {
      grad[m] = keep_lanes(g.load(from + uint32(offset + int(m) * d), p), overlap, Lanes.width);
    });
    // The input j dilations after the first one serves every pair (output m, tap k) with m - k = j.
    unroll<0, N + Outputs - 1>([&](auto i) TCNCA_INLINE {
      constexpr int j = decltype(i)::value - (N - 1);
      value const in = x.load(origin + uint32(offset + j * d), p);
      unroll<(j > 0 ? j : 0), (j + N < Outputs ? j + N : Outputs)>([&](auto m) TCNCA_INLINE {
        auto& s = taps.sum[int(m) - j][int(m) % taps.chains];
        s = fma(grad[m], in, s);
      });
    });
  });

  thread_partition<Lanes, Group> const part(group);
  int const step = part.workers * P;
  for (int start = blocks * (Outputs * d) + part.worker * P; start < tile.count; start += Outputs * step)
    unroll<0, Outputs>([&](auto m) TCNCA_INLINE {
      int const offset = start + int(m) * step;
      if (offset >= tile.count) return;
      int const valid = Lanes.along_length ? tile.count - offset : Lanes.width;
      value const grad = keep_lanes(g.load(from + uint32(offset), part.pack), 0, valid);
      unroll<0, N>([&](auto k) TCNCA_INLINE {
        auto& s = taps.sum[k][int(m) % taps.chains];
        value const in = x.load(origin + uint32(offset) - uint32(int(k)) * tile.dilation, part.pack);
        s = fma(grad, keep_lanes(in, 0, valid), s);
      });
    });
  taps.save(sums, stride);
}

/// The same for a tile of whole packs and one thread, `Outputs` consecutive packs at a time. Dilation as for
/// dilated_sum.
template <int N, int Outputs, int Dilation, class A, lanes Lanes>
TCNCA_HOST_DEVICE void correlate_consecutive(ring<A, Lanes> g, ring<A, Lanes> x, dilated_tile tile, int first_tap,
                                             A* sums, int stride) {
  using value = pack<A, Lanes.width>;
  constexpr int P = Lanes.positions(), span = round_up((N - 1) * Dilation, P);
  uint32 const origin = uint32(tile.first + tile.look_ahead) - uint32(first_tap) * tile.dilation;
  sums += first_tap * stride;
  tap_sums<N, A, P> taps(sums, stride);
  auto const add = [&](int start, auto packs) TCNCA_INLINE {
    A const* const grads = g.at(uint32(tile.first) + uint32(start), 0);
    array<A const*, N> in;
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
          s = fma(grad, load_delayed<decltype(k)::value * Dilation, true, A, P>(in[0] + int(m) * P), s);
        }
      });
    });
  };
  int start = 0;
  for (; start + Outputs * P <= tile.count; start += Outputs * P) add(start, constant<Outputs>{});
  for (; start < tile.count; start += P) add(start, constant<1>{});
  taps.save(sums, stride);
}

}  // namespace detail

/// Adds the tile's contribution to this thread's own sums: those of tap k are at sums + k * stride. Called by all
/// threads of the group; each adds its own items in a fixed order. The sums of taps outside of first_tap .. last_tap
/// keep their values. Does not synchronize. Outputs and Dilation as for dilated_sum.
template <int Taps, int Outputs, int Dilation = 0, class Group, class A, lanes Lanes>
TCNCA_HOST_DEVICE void correlate(Group group, ring<A, Lanes> g, ring<A, Lanes> x, dilated_tile tile, A* sums,
                                 int stride) {
  constexpr int N = Taps < 8 ? Taps : 8, P = Lanes.positions();
  constexpr bool consecutive = detail::reads_consecutive_packs<Outputs, Lanes> && Group::size() == 1;
  int const d = int(tile.dilation);
  bool const strided = d >= P && d <= tile.count && (!consecutive || d % P != 0);
  int const blocks = strided ? tile.count / (Outputs * d) : 0;
  if constexpr (consecutive) {
    if (blocks == 0) {
      dilated_tile packs = tile;
      packs.count = tile.count / P * P;
      int k = tile.first_tap;
      for (; k + N <= tile.last_tap; k += N)
        detail::correlate_consecutive<N, Outputs, Dilation>(g, x, packs, k, sums, stride);
      if constexpr (N > 1) {
        for (; k < tile.last_tap; k++) detail::correlate_consecutive<1, Outputs, 0>(g, x, packs, k, sums, stride);
      }
      tile.first += packs.count, tile.count -= packs.count;
      if (tile.count == 0) return;
    }
  }
  int k = tile.first_tap;
  for (; k + N <= tile.last_tap; k += N)
    detail::correlate_general<N, Outputs>(group, g, x, tile, blocks, k, sums, stride);
  if constexpr (N > 1) {
    for (; k < tile.last_tap; k++) detail::correlate_general<1, Outputs>(group, g, x, tile, blocks, k, sums, stride);
  }
}

}  // namespace tcnca
