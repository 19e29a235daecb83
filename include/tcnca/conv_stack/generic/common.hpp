// Code common to the forward and the backward agent: subtiles, choice of the dilated-sum kernel, weights, input.
#pragma once
#include "../../block/agent.hpp"
#include "../../block/dilated.hpp"
#include "../../block/sequence_lanes.hpp"
#include "../residual.hpp"
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The tile [first, first + count) with the taps that read a sample in [begin, end) for at least one position.
TCNCA_HOST_DEVICE constexpr dilated_tile restrict_taps(index_t first, index_t count, index_t look_ahead,
                                                       index_t dilation, int taps, index_t begin, index_t end) {
  dilated_tile tile{.first = first,
                    .count = int(count),
                    .look_ahead = look_ahead,
                    .dilation = uint32(dilation),
                    .first_tap = 0,
                    .last_tap = taps};
  if (first + look_ahead - (taps - 1) * dilation >= begin && first + count + look_ahead <= end) return tile;
  index_t const newest = first + count - 1 + look_ahead - begin, oldest = first + look_ahead - (end - 1);
  // The taps before `newest` and `oldest`. 32 bits hold all distances up to the last tap.
  auto const taps_within = [&](index_t distance) {
    if (distance <= 0) return 0;
    return distance > (taps - 1) * dilation ? taps : 1 + int(uint32(distance - 1) / uint32(dilation));
  };
  tile.last_tap = taps_within(newest + 1);
  tile.first_tap = min_of(tile.last_tap, taps_within(oldest));
  return tile;
}

/// One group's memory for a stack, and what both agents do with it. Unless stated otherwise, members are called by all
/// threads of the group and do not synchronize.
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

  /// Where a sequence of a call is.
  template <class Params>
  TCNCA_HOST_DEVICE static sequence_place place_of(Params const& p, index_t number) {
    sequence_table table = p.sequences;
    table.max_length = p.x.extent[2];
    return table[number];
  }
  /// Layer l's part of a sequence's state, before its first sample or after its last one.
  template <class Params, class U>
  TCNCA_HOST_DEVICE static layer_state<U> state_at(Params const& p, sequence_view<U> const& state, index_t number,
                                                   int l, index_t channel, index_t valid, bool at_end) {
    sequence_place const s = place_of(p, number);
    index_t const history = Shape.history(l);
    uint32 slot = at_end ? p.slots.end[l] : p.slots.begin[l];  // if all sequences have the same
    if ((p.sequences.offsets.present() || p.sequences.positions.present()) && history > 0)
      slot = uint32((s.position + (at_end ? s.length : 0)) % history);
    return layer_state<U>::template of<Shape>(l, state, s.slot, channel, valid, at_end ? s.length : 0, slot);
  }
  /// The channels of one sequence from `channel` on. aligned: vectors of `elements` may be accessed in a sequence that
  /// starts at a multiple of them.
  template <class U>
  TCNCA_HOST_DEVICE static sequence_lanes<U, Lanes> lanes_of(sequence_view<U> const& v, sequence_place const& s,
                                                             index_t channel, bool aligned, int elements) {
    index_t const offset = s.begin * v.stride[2];
    sequence_lanes<U, Lanes> lanes{v, s.batch, channel, aligned && (Group::size() == 1 || offset % elements == 0)};
    if (v.present()) lanes.row += offset;
    return lanes;
  }

  template <memory_space Space>
  TCNCA_HOST_DEVICE A* at(memory_place const& m) const {
    if constexpr (Space == memory_space::shared) {
      return shared_memory + m.offset;
    } else {
      return global_scratch + m.offset;
    }
  }

  /// Copies the parameters of one direction to the group's memory: [layer][tap][channel], then biases, then omega.
  /// Channels from valid_channels on become zero.
  template <element Weight>
  TCNCA_NOINLINE void load_weights(A* to, tensor_view<Weight const, 3> const& weight,
                                   tensor_view<Weight const, 2> const& bias, tensor_view<Weight const, 1> const& omega,
                                   index_t channel, index_t valid_channels, int direction_index) const {
    constexpr int L = Shape.layers(), K = Shape.taps;
    for (int i = group.rank(); i < int(tiling::weight_elements()); i += group.size()) {
      int const c = i % channels, row = i / channels;
      A v = 0;
      if (c < valid_channels) {
        if (row < L * K) v = to_accumulate(*weight.at(direction_index * L + row / K, row % K, channel + c));
        else if (Shape.bias && row < L * (K + 1))
          v = to_accumulate(*bias.at(direction_index * L + row - L * K, channel + c));
        else v = to_accumulate(*omega.at(channel + c));
      }
      to[i] = v;
    }
  }
  /// The taps of a layer and its bias. reversed: the last tap first.
  TCNCA_HOST_DEVICE static dilated_taps<A> taps_of(A const* weights, int layer, bool reversed) {
    A const* const first = weights + layer * Shape.taps * channels;
    A const* const bias = Shape.bias ? weights + (Shape.layers() * Shape.taps + layer) * channels : nullptr;
    if (reversed) return {.tap = first + (Shape.taps - 1) * channels, .step = -channels, .bias = bias};
    return {.tap = first, .step = channels, .bias = bias};
  }
  TCNCA_HOST_DEVICE static A const* omega_of(A const* weights) {
    return weights + Shape.parameters_per_direction() * channels;
  }

  /// The dilation of a layer if dilated_sum has a kernel for it that needs it at compile time, else 0.
  TCNCA_HOST_DEVICE static constexpr int short_dilation(int layer) {
    return has_shifted<A, Lanes.width> && Lanes.along_length && Shape.dilation(layer) < Lanes.width
               ? int(Shape.dilation(layer))
               : 0;
  }
  /// The largest short_dilation below a limit among the layers [First, Last); -1 if there is none.
  template <int First, int Last>
  TCNCA_HOST_DEVICE static constexpr int largest_short_dilation(int limit) {
    int largest = -1;
    for (int l = First; l < Last; l++)
      if (short_dilation(l) < limit) largest = max_of(largest, short_dilation(l));
    return largest;
  }
  /// f(constant<short_dilation(layer)>) for a layer in [First, Last). f is instantiated once for each value that occurs
  /// there. f(constant<0>) for an empty range.
  template <int First, int Last, int Limit = Lanes.width, class F>
  TCNCA_HOST_DEVICE static void with_short_dilation(int layer, F const& f) {
    constexpr int d = largest_short_dilation<First, Last>(Limit);
    if constexpr (largest_short_dilation<First, Last>(d) < 0) {
      f(constant<max_of(d, 0)>{});
    } else {
      if (short_dilation(layer) == d) f(constant<d>{});
      else with_short_dilation<First, Last, d>(layer, f);
    }
  }

  /// f(tile, offset) for the subtiles of the positions [from, to) of a layer that reads samples in [begin, end): one
  /// inside of the sequence, short ones at its ends. offset is that of the subtile from `from`.
  template <class F>
  TCNCA_HOST_DEVICE static void for_each_subtile(int layer, index_t from, index_t to, index_t look_ahead, index_t begin,
                                                 index_t end, F f) {
    // From `inside` to `outside` all taps read the sequence.
    index_t const d = Shape.dilation(layer), inside = begin + Shape.history(layer) - look_ahead,
                  outside = end - look_ahead;
    for (index_t t = from, next; t < to; t = next) {
      next = to;
      if constexpr (Lanes.mirrored()) {  // otherwise tiles are not split
        if (t < inside || outside < to) {
          index_t const step = tiling::boundary_subtile(layer, to - from);
          next = min_of(to, t + (t < inside || outside - t < step ? step : (outside - t) / step * step));
        }
      }
      f(restrict_taps(t, next - t, look_ahead, d, Shape.taps, begin, end), int(t - from));
    }
  }
  /// The dilated sums at positions [from, to) of a layer in [First, Last): emit(offset from `from`, p, sum), as for
  /// dilated_sum.
  template <int First, int Last, class Emit>
  TCNCA_HIDDEN TCNCA_HOST_DEVICE void dilated_sums(int layer, ring_type x, dilated_taps<A> const& w, index_t from,
                                                   index_t to, index_t look_ahead, index_t begin, index_t end,
                                                   Emit const& emit) const {
    for_each_subtile(layer, from, to, look_ahead, begin, end, [&](dilated_tile const& tile, int first) TCNCA_INLINE {
      auto const emit_from_tile = [emit, first](int offset, int p, value sum)
                                      TCNCA_INLINE { emit(first + offset, p, sum); };
      with_short_dilation<First, Last>(layer, [&](auto dilation) TCNCA_INLINE {
        dilated_sum<Shape.taps, Policy.outputs_per_thread, decltype(dilation)::value>(group, x, w, tile,
                                                                                      emit_from_tile);
      });
    });
  }

  /// Sets the positions [from, to) of a ring to zero, in whole packs.
  TCNCA_NOINLINE void clear(ring_type r, index_t from, index_t to) const {
    int const n = int(divide_up(to - from, index_t(Lanes.positions()))) * packs;
    for (int i = group.rank(); i < n; i += group.size())
      r.store(uint32(from + i / packs * Lanes.positions()), i % packs, broadcast<Lanes.width>(A(0)));
  }

  /// Whether a layer's packs can be written with non-temporal stores: all of them are whole cache lines if the first
  /// one is.
  TCNCA_HOST_DEVICE static constexpr bool can_stream(int layer) {
    return may_stream<T, Lanes> && (Shape.dilation(layer) < Lanes.width || Shape.dilation(layer) % Lanes.width == 0);
  }
  /// Positions per vector load of a sequence. Tiles and segments start at multiples of it.
  static constexpr int vector_elements = Lanes.along_length ? max_of(Lanes.width, int(16 / sizeof(T))) : 1;
  /// Elements of x per vector load: consecutive positions, or the channels of a pack.
  static constexpr int x_vector_elements = Lanes.along_length ? vector_elements : Lanes.width;

  /// Copies x[from, to) into a ring. `from` is a multiple of vector_elements.
  TCNCA_HOST_DEVICE void load_input(ring_type r, sequence_lanes<T const, Lanes> const& x, index_t from, index_t to,
                                    A* staging) const {
    int const n = int(divide_up(max_of(index_t(0), to - from), index_t(vector_elements))) * packs;
    tile_writer<A, Lanes> const tile(r, from, max_of(index_t(0), to - from), staging);
    for (int i = group.rank(); i < n; i += group.size()) {
      index_t const t = from + i / packs * vector_elements;
      if constexpr (vector_elements == Lanes.positions()) {
        // Prefetches the next tile, or the first one of the next sequence, while the layers process this one.
        if constexpr (Lanes.mirrored()) {
          detail::prefetch(reinterpret_cast<char const*>(x.row + t) + size_t(to - from) * sizeof(T));
        }
        tile.store(i / packs * vector_elements, i % packs, x.load(t, i % packs, to - t));
      } else {  // packs have one lane; a vector load covers several positions
        if (x.vectorizable && t + vector_elements <= to)
          store<vector_elements>(r.at(uint32(t), 0), load<vector_elements>(x.row + t));
        else
          for (index_t j = t; j < min_of(t + vector_elements, to); j++) r.store(uint32(j), 0, x.load(j, 0, 1));
      }
    }
    if (n > 0) tile.finish();
  }
};

}  // namespace tcnca::detail
