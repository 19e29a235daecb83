// The taps of one layer on a run of vectors in memory: its sums, and the two sums of its gradients.
//
// Vector i of tap k is at from[k] + i * W, of a result at out + i * W. Weights are whole vectors, so the same kernels
// serve lanes along the length and lanes along the channels. Nothing depends on a layer's dilation: the kernels of one
// number of taps serve all layers and all stacks.
#pragma once
#include "../../block/dilated.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Taps whose weights and sums a kernel keeps in registers.
template <int Taps>
inline constexpr int taps_together = divide_up(Taps, divide_up(Taps, register_bytes == 64 ? 9 : 5));

/// A layer's weights, or the sums of their gradients: the vector of tap k at first + k * step.
template <class U>
struct tap_vectors {
  U* first;
  index_t step;

  TCNCA_HOST_DEVICE tap_vectors from(int tap) const { return {first + tap * step, step}; }
};

/// out = begin + sum_k w[k] tap k for N taps, in this order. begin: `bias`, or with First == false what out holds.
/// Relu: out = max(0, out) at the end. count: elements, whole vectors.
template <int W, int N, bool First, bool Relu, class A>
TCNCA_NOINLINE void sum_taps(A const* const* from, tap_vectors<A const> w, A const* bias, A* out, index_t count) {
  using value = pack<A, W>;
  constexpr int vectors = N <= 4 ? 4 : 2;
  array<A const*, N> in;
  array<value, N> weight;
  unroll<0, N>([&](auto k) TCNCA_INLINE { in[k] = from[k], weight[k] = load<W>(w.first + k * w.step); });
  value const begin = load<W>(bias);
  index_t i = 0;
  auto const add = [&](auto n) TCNCA_INLINE {
    array<value, decltype(n)::value> sum;
    unroll<0, decltype(n)::value>(
        [&](auto u) TCNCA_INLINE { sum[u] = First ? begin : load<W>(const_cast<A const*>(out) + i + u * W); });
    unroll<0, N>([&](auto k) TCNCA_INLINE {
      unroll<0, decltype(n)::value>([&](auto u)
                                        TCNCA_INLINE { sum[u] = fma(weight[k], load<W>(in[k] + i + u * W), sum[u]); });
    });
    unroll<0, decltype(n)::value>([&](auto u)
                                      TCNCA_INLINE { store<W>(out + i + u * W, Relu ? max_zero(sum[u]) : sum[u]); });
    i += decltype(n)::value * W;
  };
  while (i + vectors * W <= count) add(constant<vectors>{});
  while (i < count) add(constant<1>{});
}

/// Lines of memory that a kernel prefetches one after another while it computes.
struct prefetch_lines {
  char const* at;
  index_t stride;

  TCNCA_HOST_DEVICE void next() { prefetch(at), at += stride; }
};

/// out = begin + sum_k w[k] tap k for N taps, in this order, and sums[k] += in * tap k. begin: 0, or with First ==
/// false what out holds. Relu: out = in > 0 ? out : 0 at the end. Each tap is loaded once for both.
template <int W, int N, bool First, bool Relu, class A>
TCNCA_NOINLINE void correlate_taps(A const* const* from, tap_vectors<A const> w, A const* in, A* out,
                                   tap_vectors<A> sums, index_t count, prefetch_lines ahead) {
  using value = pack<A, W>;
  // Consecutive vectors have sums of their own where few taps would not hide the latency of an addition.
  constexpr int vectors = N <= 2 ? 4 : N <= 4 ? 2 : 1;
  value const zero = broadcast<W>(A(0));
  array<A const*, N> tap;
  array<value, N> weight;
  array<array<value, vectors>, N> sum;
  unroll<0, N>([&](auto k) TCNCA_INLINE {
    tap[k] = from[k], weight[k] = load<W>(w.first + k * w.step);
    sum[k][0] = load<W>(const_cast<A const*>(sums.first) + k * sums.step);
    unroll<1, vectors>([&](auto u) TCNCA_INLINE { sum[k][u] = zero; });
  });
  index_t i = 0;
  auto const add = [&](auto n) TCNCA_INLINE {
    ahead.next();
    unroll<0, decltype(n)::value>([&](auto u) TCNCA_INLINE {
      value const v = load<W>(in + i + u * W);
      value g = First ? zero : load<W>(const_cast<A const*>(out) + i + u * W);
      unroll<0, N>([&](auto k) TCNCA_INLINE {
        value const h = materialize(load<W>(tap[k] + i + u * W));  // else GCC loads it for each multiply-add
        g = fma(weight[k], h, g);
        sum[k][u] = fma(v, h, sum[k][u]);
      });
      store<W>(out + i + u * W, Relu ? select_positive(v, g, zero) : g);
    });
    i += decltype(n)::value * W;
  };
  while (i + vectors * W <= count) add(constant<vectors>{});
  while (i < count) add(constant<1>{});
  unroll<0, N>([&](auto k) TCNCA_INLINE {
    value total = sum[k][0];
    unroll<1, vectors>([&](auto u) TCNCA_INLINE { total = total + sum[k][u]; });
    store<W>(sums.first + k * sums.step, total);
  });
}

/// Writes the same vector `count` / W times.
template <int W, class A>
TCNCA_NOINLINE void fill(A const* v, A* out, index_t count) {
  for (index_t i = 0; i < count; i += W) store<W>(out + i, load<W>(v));
}
/// out = at > 0 ? in : 0. out may be `in` or `at`.
template <int W, class A>
TCNCA_NOINLINE void relu(A const* at, A const* in, A* out, index_t count) {
  for (index_t i = 0; i < count; i += W)
    store<W>(out + i, select_positive(load<W>(at + i), load<W>(in + i), broadcast<W>(A(0))));
}

/// Positions [.., end) of a layer that read the taps [first, last); all others read only zeros.
struct tap_run {
  index_t end;
  int first, last;

  /// The run from t on, at most up to `end`, of a layer that reads t + look_ahead - k dilation, of inputs that are not
  /// zero in [begin, length). Unless it is cut off, a run has at least `block` positions; it may read up to `block`
  /// zeros at each end. t, end and block are whole vectors of P positions.
  template <int Taps, index_t P>
  TCNCA_HOST_DEVICE static tap_run at(index_t t, index_t end, index_t block, index_t dilation, index_t look_ahead,
                                      index_t begin, index_t length) {
    tap_run r{end, 0, Taps};
    index_t const before = t + look_ahead - begin, after = t + look_ahead - length;  // of tap 0
    uint32 const d = uint32(dilation);  // 32 bits hold all distances up to the last tap
    if (index_t const reach = before + block - 1; reach < (Taps - 1) * dilation) {
      r.last = reach < 0 ? 0 : int(uint32(reach) / d) + 1;
      r.end = min_of(r.end, t + (r.last * dilation - before) / P * P);
    }
    if (after + (end - t) > 0) {
      if (after >= 0) r.first = after >= (Taps - 1) * dilation ? Taps : int(uint32(after) / d) + 1;
      if (r.first < Taps) r.end = min_of(r.end, t + max_of(block, round_up(r.first * dilation - after, P)));
    }
    return r;
  }
};

/// Adds all taps: f(constant<taps of the chunk>, constant<tap>, constant<it is the first>, constant<it is the last>).
template <int Taps, class F>
TCNCA_HOST_DEVICE void for_all_taps(F const& f) {
  constexpr int G = taps_together<Taps>, chunks = divide_up(Taps, G), rest = Taps - (chunks - 1) * G;
  if constexpr (chunks == 1) {
    f(constant<Taps>{}, constant<0>{}, constant<1>{}, constant<1>{});
  } else {
    f(constant<G>{}, constant<0>{}, constant<1>{}, constant<0>{});
    for (int k = G; k < Taps - rest; k += G) f(constant<G>{}, k, constant<0>{}, constant<0>{});
    f(constant<rest>{}, constant<Taps - rest>{}, constant<0>{}, constant<1>{});
  }
}

/// Adds the taps [first, last) in chunks: f(constant<taps of the chunk>, tap, constant<it is the first chunk>).
/// Chunks of the most taps that fit in registers, then of a power of two.
template <int Taps, class F>
TCNCA_HOST_DEVICE void for_some_taps(int first, int last, F const& f) {
  constexpr int G = taps_together<Taps>;
  bool is_first = true;
  auto const take = [&](auto n) TCNCA_INLINE {
    if (is_first) f(n, first, constant<1>{});
    else f(n, first, constant<0>{});
    is_first = false, first += decltype(n)::value;
  };
  if constexpr (G > 4) {
    while (last - first >= G) take(constant<G>{});
  }
  if constexpr (Taps > 4) {
    while (last - first >= 4) take(constant<4>{});
  }
  while (last - first >= 2) take(constant<2>{});
  if (last > first) take(constant<1>{});
}

}  // namespace tcnca::detail
