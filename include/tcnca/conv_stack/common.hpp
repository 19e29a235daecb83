// What the forward and the backward agent share: progress of layers, the range of taps, loading weights and states.
#pragma once
#include "../block/activation.hpp"
#include "../block/dilated.hpp"
#include "../block/sequence_lanes.hpp"
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Outputs of a layer that are complete once `inputs` of its inputs are there: whole tiles, counted from `begin`. Most tiles are powers of
/// two; a division would cost as much as many a tile's sums.
TCNCA_HOST_DEVICE constexpr index_t whole_tiles(index_t inputs, index_t look_ahead, index_t tile, index_t begin) {
  index_t const n = inputs - look_ahead - begin;
  if (n <= 0) return begin;
  return begin + ((tile & (tile - 1)) == 0 ? n & -tile : n / tile * tile);
}

/// The taps that touch the samples [low, high) from at least one position of the tile.
TCNCA_HOST_DEVICE constexpr dilated_tile restrict_taps(index_t first, index_t count, index_t look_ahead,
                                                       index_t dilation, int taps, index_t low, index_t high) {
  if (first + look_ahead - (taps - 1) * dilation >= low && first + count + look_ahead <= high)
    return {first, int(count), look_ahead, uint32(dilation), 0, taps};
  index_t const newest = first + count - 1 + look_ahead - low, oldest = first + look_ahead - (high - 1);
  index_t const last = newest < 0 ? 0 : min_of(index_t(taps), newest / dilation + 1);
  index_t const begin = oldest <= 0 ? 0 : min_of(last, divide_up(oldest, dilation));
  return {first, int(count), look_ahead, uint32(dilation), int(begin), int(last)};
}

/// a modulo n in [0, n).
TCNCA_HOST_DEVICE constexpr index_t modulo(index_t a, index_t n) {
  index_t const r = a % n;
  return r < 0 ? r + n : r;
}

/// One group's view of a stack: its memory, its channels, its weights.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_group {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  using A = accumulate_t<T>;
  static constexpr lanes Lanes = tiling::lane_order;
  static constexpr int channels = Lanes.channels();
  static constexpr int packs = Lanes.packs;
  using ring_type = ring<A, Lanes>;
  using value = pack<A, Lanes.width>;

  Group group;
  A* shared_memory;
  A* global_scratch;
  A* spare = nullptr;  // of the tile_writers

  TCNCA_HOST_DEVICE A* at(memory_place const& m) const {
    return (m.global_scratch ? global_scratch : shared_memory) + m.offset;
  }
  TCNCA_HOST_DEVICE ring_type ring_at(memory_place const& m) const { return {at(m), m.mask}; }

  /// Copies the weights of one direction_index to fast memory: [layer][tap][channel], then biases, then omega; zero for channels that do not exist.
  TCNCA_NOINLINE void load_weights(A* to, tensor_view<T const, 3> const& weight, tensor_view<T const, 2> const& bias,
                                   tensor_view<T const, 1> const& omega, index_t channel, index_t existing,
                                   int direction_index) const {
    constexpr int L = Shape.layers(), K = Shape.taps;
    for (int i = group.rank(); i < int(tiling::weight_elements()); i += group.size()) {
      int const c = i % channels, row = i / channels;
      A v = 0;
      if (c < existing) {
        if (row < L * K) v = to_accumulate(*weight.at(direction_index * L + row / K, row % K, channel + c));
        else if (Shape.bias && row < L * (K + 1))
          v = to_accumulate(*bias.at(direction_index * L + row - L * K, channel + c));
        else v = to_accumulate(*omega.at(channel + c));
      }
      to[i] = v;
    }
  }
  /// The dilation of a layer where dilated_sum wants it at compile time, else 0.
  TCNCA_HOST_DEVICE static constexpr int short_dilation(int layer) {
    return has_shifted<A, Lanes.width> && Lanes.along_length && Shape.dilation(layer) < Lanes.width
               ? int(Shape.dilation(layer))
               : 0;
  }
  /// f(constant) with the layer's short_dilation, where the layer is known to lie in [First, Last).
  template <int First, int Last, class F>
  TCNCA_HOST_DEVICE static void with_dilation(int layer, F&& f) {
    if constexpr (First < Last) {
      constexpr int d = short_dilation(First);
      constexpr bool same_for_all = [] {
        for (int i = First; i < Last; i++)
          if (short_dilation(i) != d) return false;
        return true;
      }();
      if constexpr (same_for_all) {
        f(constant<d>{});
      } else {
        if (layer == First) f(constant<d>{});
        else with_dilation<First + 1, Last>(layer, f);
      }
    }
  }

  /// Whether the packs that a layer sums up all begin a cache line if the first does.
  TCNCA_HOST_DEVICE static constexpr bool streams(int layer) {
    return may_stream<T, Lanes> && (Shape.dilation(layer) < Lanes.width || Shape.dilation(layer) % Lanes.width == 0);
  }

  /// The taps of a layer and its bias; reversed: the last tap first.
  TCNCA_HOST_DEVICE static dilated_taps<A> taps_of(A const* weights, int layer, bool reversed) {
    A const* const first = weights + layer * Shape.taps * channels;
    A const* const bias = Shape.bias ? weights + (Shape.layers() * Shape.taps + layer) * channels : nullptr;
    if (reversed) return {first + (Shape.taps - 1) * channels, -channels, bias};
    return {first, channels, bias};
  }
  TCNCA_HOST_DEVICE static A const* omega(A const* weights) {
    return weights + (Shape.layers() * (Shape.taps + (Shape.bias ? 1 : 0))) * channels;
  }

  /// Zeros in [from, to), whole packs.
  TCNCA_NOINLINE void clear(ring_type r, index_t from, index_t to) const {
    int const n = int(divide_up(to - from, index_t(Lanes.positions()))) * packs;
    for (int i = group.rank(); i < n; i += group.size())
      r.store(uint32(from + i / packs * Lanes.positions()), i % packs, broadcast<Lanes.width>(A(0)));
  }

  /// f(dilated_tile, its offset) for the pieces of [from, to), and for what lies between those at the ends.
  template <class F>
  TCNCA_HOST_DEVICE static void subtiles(int layer, index_t from, index_t to, index_t look_ahead, index_t low,
                                         index_t high, F f) {
    index_t const d = Shape.dilation(layer), inside = low + Shape.history(layer) - look_ahead,
                  outside = high - look_ahead;
    for (index_t t = from, end; t < to; t = end) {
      end = to;
      if (t < inside || outside < to) {
        index_t const step = tiling::subtile(layer, to - from);
        end = min_of(to, t + (t < inside || outside - t < step ? step : (outside - t) / step * step));
      }
      f(restrict_taps(t, end - t, look_ahead, d, Shape.taps, low, high), int(t - from));
    }
  }
  /// Positions read from a sequence at once; tiles and segments begin at multiples of it.
  static constexpr int vector_elements = Lanes.along_length ? max_of(Lanes.width, int(16 / sizeof(T))) : 1;
  /// Elements of x in one vector access: neighbouring positions, or the channels of a pack.
  static constexpr int x_access = Lanes.along_length ? vector_elements : Lanes.width;

  /// x[from, to) into a ring; from is a multiple of vector_elements.
  TCNCA_HOST_DEVICE void append(ring_type r, sequence_lanes<T const, Lanes> const& x, index_t from, index_t to) const {
    int const n = int(divide_up(max_of(index_t(0), to - from), index_t(vector_elements))) * packs;
    tile_writer<A, Lanes> const tile(r, from, max_of(index_t(0), to - from), spare);
    for (int i = group.rank(); i < n; i += group.size()) {
      index_t const t = from + i / packs * vector_elements;
      if constexpr (vector_elements == Lanes.positions()) {
        // What comes next, up to the first tile of the next sequence, is on its way while the layers work.
        if constexpr (Lanes.front() > 0) {
          detail::prefetch(reinterpret_cast<char const*>(x.row + t) + size_t(to - from) * sizeof(T));
        }
        tile.store(i / packs * vector_elements, i % packs, x.load(t, i % packs, to - t));
      } else {
        if (x.vectorizable && t + vector_elements <= to)
          store<vector_elements>(r.at(uint32(t), 0),
                                 load<vector_elements>(x.row + t));  // packs have one lane: an access loads several
        else
          for (index_t j = t; j < min_of(t + vector_elements, to); j++) r.store(uint32(j), 0, x.load(j, 0, 1));
      }
    }
    if (n > 0) tile.finish();
  }

  /// The history of a layer from a state: positions [-history, 0) of the sequence.
  TCNCA_NOINLINE void load_history(ring_type r, sequence_view<A const> const& state, index_t batch, index_t channel,
                                   index_t existing, int layer, index_t position) const {
    index_t const history = Shape.history(layer), begin = Shape.history_before(layer);
    for (index_t i = group.rank(); i < history * channels; i += group.size()) {
      index_t const c = i % channels, t = i / channels - history;
      A const v = c < existing ? *state.at(batch, channel + c, begin + modulo(position + t, history)) : A(0);
      r.store_sample(uint32(t), int(c), v);
    }
  }
};

}  // namespace tcnca::detail
