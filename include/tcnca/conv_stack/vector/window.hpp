// The newest inputs of one layer, kept from block to block, and the taps of a block of outputs.
#pragma once
#include "../../block/dilated.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Vectors of a block. The sums of a block hide the latency of a multiply-add: 4 cycles on two pipes. With 16 a
/// processor also has independent work while a layer waits for the last sums of the layer before it, and a layer loads
/// its taps and its oldest inputs half as often. 16 fit into 32 registers if each vector takes all its taps at once.
/// Emerald Rapids, in registers, 4 taps: 8 sums reach 84 to 88% of the peak, 12 sums 97%. All six layers of K 4 f 4
/// with x and y in the second cache, 8 | 16 vectors: 74 | 78% (2026-11-30).
template <int Taps>
inline constexpr int block_vectors = register_bytes == 64 && Taps <= 8 ? 16 : 8;

/// A block in registers: vectors of consecutive positions of one channel, or of consecutive positions of `W` channels.
template <class A, int W, int Taps>
using vector_block = array<pack<A, W>, block_vectors<Taps>>;

/// How a layer keeps its inputs.
enum class window_kind {
  carried,     ///< the history is not longer than a block: the last vectors before the block
  short_ring,  ///< the dilation is shorter than a block: some taps lie inside the block
  long_ring    ///< all old taps lie before the block
};

/// The inputs of one layer before the current block, in memory, and the access to all taps of the block. Vector u of
/// tap k holds the inputs k * Dilation positions before vector u of the block. Used by one thread.
///
/// A ring holds `capacity` positions, a multiple of the block, at least the history and the current block; if the
/// history is carried, twice the carried vectors. Its first block is repeated after its end where a tap may begin
/// anywhere, so every tap of a block is contiguous. Delay: the ring also keeps the inputs of so many positions ago, for
/// load_delayed().
template <class A, lanes Lanes, int Taps, index_t Dilation, index_t Delay = 0>
struct layer_window {
  static constexpr int U = block_vectors<Taps>, W = Lanes.width;
  static constexpr index_t P = Lanes.positions(), block_positions = U * P;
  static constexpr index_t history = (Taps - 1) * Dilation;
  static constexpr index_t elements_per_position = W / P;
  static constexpr window_kind kind = Delay == 0 && history <= block_positions ? window_kind::carried
                                      : Dilation < block_positions             ? window_kind::short_ring
                                                                               : window_kind::long_ring;
  static constexpr int before = int(divide_up(history, P));  // vectors of the history
  static constexpr index_t capacity = kind == window_kind::carried
                                          ? 2 * before * P
                                          : round_up(max_of(history, Delay) + block_positions, block_positions);
  static constexpr bool mirrored =
      kind != window_kind::carried && (Dilation % block_positions != 0 || Delay % block_positions != 0);
  using value = pack<A, W>;
  using block = vector_block<A, W, Taps>;

  /// Elements of memory.
  TCNCA_HOST_DEVICE static constexpr index_t elements() {
    return (capacity + (mirrored ? block_positions : 0)) * elements_per_position;
  }

  A* memory;         // aligned to 64 bytes
  index_t slot = 0;  // the place of the current block in the ring

  /// The element of the input `distance` positions before the first block, in [1, history].
  TCNCA_HOST_DEVICE A* initial(index_t distance) const {
    return memory + (capacity - distance) * elements_per_position;
  }
  /// Makes the inputs before the first block zero, as far as taps read them that are not left out.
  TCNCA_HOST_DEVICE void clear() const {
    constexpr index_t read = kind == window_kind::long_ring ? (mirrored ? block_positions : 0) : before * P;
    for (index_t i = 0; i < read; i += P)
      store<W>(memory + (capacity - read + i) * elements_per_position, broadcast<W>(A(0)));
  }

  /// Taps that read an input from `begin` on for some position of the block at `position`.
  TCNCA_HOST_DEVICE static int live_taps(index_t position, index_t begin) {
    if (kind != window_kind::long_ring || position - begin >= history) return Taps;
    return int((position - begin + block_positions - 1) / Dilation) + 1;
  }

  /// The input `offset` positions before the block, in [0, capacity), of the ring: a block from there on is contiguous.
  TCNCA_HOST_DEVICE A const* ring_at(index_t offset) const {
    index_t const at = slot - offset;
    return memory + (at < 0 ? at + capacity : at) * elements_per_position;
  }

  /// Vector u of tap k. v is the current block. Not for a long ring, except for tap 0.
  /// x: the block in memory after its history, if InX. A shift competes with the multiply-adds for their ports; a
  /// load from x that crosses a cache line takes two turns of the ports of the loads. Both are busy if half of the
  /// vectors use either. Emerald Rapids, K 4 | 8 | 17 at 4096 positions: shifts 67 | 68 | 64%, loads 65 | 58 | 56%,
  /// both 70 | 72 | 73% (2026-11-30).
  template <int K, int Vector, bool InX = false>
  TCNCA_HOST_DEVICE value tap(block const& v, [[maybe_unused]] A const* x = nullptr) const {
    constexpr index_t offset = K * Dilation, rest = offset % P;
    constexpr int at = Vector - int(offset / P);  // of the vector, or of the newer one of two
    if constexpr (rest == 0 && at >= 0) {
      return v[at];
    } else if constexpr (InX && (at < 0 || Vector % 2 == 1)) {
      return load<W>(x + (Vector * P - offset) * elements_per_position);
    } else if constexpr (at < 0) {
      return load<W>(ring_at(offset) + Vector * W);
    } else if constexpr (at == 0) {
      return shifted<int(P - rest) % W>(load<W>(ring_at(P)), v[0]);
    } else {
      return shifted<int(P - rest) % W>(v[at - 1], v[at]);
    }
  }

  /// v becomes the block `Delay` positions before the one that convolve() kept last.
  TCNCA_HOST_DEVICE void load_delayed(block& v) const {
    A const* const from = ring_at(Delay + block_positions);
    unroll<0, U>([&](auto u) TCNCA_INLINE { v[u] = load<W>(from + u * W); });
  }

  /// Stores what later blocks read of the current block. Its taps can still be read.
  TCNCA_HOST_DEVICE void keep(block const& v) const {
    constexpr int kept = kind == window_kind::carried ? before : U;
    A* const to = memory + slot * elements_per_position;
    unroll<0, kept>([&](auto i) TCNCA_INLINE { store<W>(to + i * W, v[U - kept + int(i)]); });
    if (mirrored && slot == 0)
      unroll<0, U>([&](auto u) TCNCA_INLINE { store<W>(to + capacity * elements_per_position + u * W, v[u]); });
  }
  /// The next block is the current one.
  TCNCA_HOST_DEVICE void advance() {
    slot += kind == window_kind::carried ? before * P : block_positions;
    if (slot == capacity) slot = 0;
  }

  /// v becomes the sums over its taps: bias + sum_k w[k] tap k, in this order. live: taps that are computed, from the
  /// first on. The block is kept, and the window advances. x: see tap(). is_read: whether a later block reads this one;
  /// if not, a long ring does not keep it.
  template <bool InX = false>
  TCNCA_HOST_DEVICE void convolve(dilated_taps<A> const& w, int live, block& v, A const* x = nullptr,
                                  bool is_read = true) {
    value const bias = detail::load_bias<A, Lanes>(w, 0);
    if (kind != window_kind::long_ring || is_read) keep(v);
    if constexpr (kind == window_kind::long_ring) {
      compiler_fence();  // the registers of v are now free for the sums
      sum_old_blocks(w, live, bias, v);
    } else {
      block sum;
      if constexpr (by_vector) {
        sum_by_vector<InX>(w, bias, v, sum, x);
      } else {
        sum_by_tap<InX>(w, bias, v, sum, x);
      }
      unroll<0, U>([&](auto u) TCNCA_INLINE { v[u] = sum[u]; });
    }
    advance();
  }

 private:
  /// Whether a vector takes all its taps at once, with all taps' weights in registers.
  static constexpr bool by_vector = U > 8;

  template <bool InX>
  TCNCA_HOST_DEVICE void sum_by_tap(dilated_taps<A> const& w, value bias, block const& v, block& sum,
                                    A const* x) const {
    unroll<0, Taps>([&](auto k) TCNCA_INLINE {
      value const weight = load_tap<A, Lanes>(w.tap + k * w.step, 0);
      unroll<0, U>([&](auto u) TCNCA_INLINE {
        sum[u] = fma(weight, tap<decltype(k)::value, decltype(u)::value, InX>(v, x), k == 0 ? bias : sum[u]);
      });
    });
  }
  /// From the newest vector to the oldest: the register of an input is free for the next sum, only older ones are read.
  template <bool InX>
  TCNCA_HOST_DEVICE void sum_by_vector(dilated_taps<A> const& w, value bias, block const& v, block& sum,
                                       A const* x) const {
    array<value, Taps> weight;
    unroll<0, Taps>([&](auto k) TCNCA_INLINE { weight[k] = load_tap<A, Lanes>(w.tap + k * w.step, 0); });
    unroll<0, U>([&](auto i) TCNCA_INLINE {
      constexpr int u = U - 1 - decltype(i)::value;
      value s = bias;
      unroll<0, Taps>([&](auto k) TCNCA_INLINE { s = fma(weight[k], tap<decltype(k)::value, u, InX>(v, x), s); });
      sum[u] = s;
    });
  }
  TCNCA_HOST_DEVICE void sum_old_blocks(dilated_taps<A> const& w, int live, value bias, block& v) const {
    value const first = load_tap<A, Lanes>(w.tap, 0);
    unroll<0, U>([&](auto u) TCNCA_INLINE { v[u] = fma(first, v[u], bias); });
    auto const add = [&](A const* tap, index_t offset) TCNCA_INLINE {
      value const weight = load_tap<A, Lanes>(tap, 0);
      A const* const from = ring_at(offset);
      unroll<0, U>([&](auto u) TCNCA_INLINE { v[u] = fma(weight, load<W>(from + u * W), v[u]); });
    };
    if (Taps <= 8 && live == Taps) {
      unroll<1, Taps <= 8 ? Taps : 1>([&](auto k) TCNCA_INLINE { add(w.tap + k * w.step, k * Dilation); });
    } else {
      A const* tap = w.tap;
      index_t offset = 0;
      for (int k = 1; k < live; k++) add(tap += w.step, offset += Dilation);
    }
  }
};

}  // namespace tcnca::detail
