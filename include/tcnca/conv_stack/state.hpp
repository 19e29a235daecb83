// The state of a stack: for each layer a ring of its newest inputs, in the caller's memory.
#pragma once
#include "../block/pack.hpp"
#include "../block/ring.hpp"
#include "../block/unroll.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The slots of two positions in each layer's ring of a state: the first sample of a sequence and the one after its
/// last. Computed on the host: a kernel divides nothing.
template <int Layers>
struct conv_stack_slots {
  detail::array<uint32, Layers> begin = {}, end = {};

  /// For `length` samples from the absolute position `position` on.
  template <conv_stack_shape Shape>
  TCNCA_HOST_DEVICE static constexpr conv_stack_slots of(index_t position, index_t length) {
    conv_stack_slots s;
    if constexpr (Shape.taps > 1) {
      unroll<0, Layers>([&](auto l) TCNCA_INLINE {  // divisors are constants
        constexpr index_t history = Shape.history(l);
        index_t const slot = position % history;
        s.begin[l] = uint32(slot);
        s.end[l] = uint32((slot + length % history) % history);
      });
    }
    return s;
  }
};

namespace detail {

/// One layer's part of a state (or of its gradient): some channels of one sequence of a batch.
template <class U>
struct layer_state {
  sequence_view<U> const& view;
  index_t batch, channel;
  index_t channels;        // from `channel` on; others of the lanes have no element
  index_t first, history;  // the layer's slots
  index_t end, end_slot;   // the state has the positions [end - history, end); the slot of position `end`

  template <conv_stack_shape Shape>
  TCNCA_HOST_DEVICE static layer_state of(int layer, sequence_view<U> const& view, index_t batch, index_t channel,
                                          index_t channels, index_t end, uint32 end_slot) {
    return {view, batch, channel, channels, Shape.history_before(layer), Shape.history(layer), end, index_t(end_slot)};
  }
  /// The element of position t in [end - history, end) and channel c < channels.
  TCNCA_HOST_DEVICE U* at(index_t t, index_t c) const {
    index_t const slot = end_slot + (t - end);
    return view.at(batch, channel + c, first + (slot < 0 ? slot + history : slot));
  }
};

/// Copies the state before position 0 to the positions [-history, 0) of a ring. Called by all threads of the group;
/// does not synchronize.
template <class Group, class A, lanes Lanes>
TCNCA_NOINLINE void load_history(Group group, ring<A, Lanes> r, layer_state<A const> const& state) {
  constexpr int channels = Lanes.channels();
  for (index_t i = group.rank(); i < state.history * channels; i += group.size()) {
    index_t const c = i % channels, t = i / channels - state.history;
    r.store_sample(uint32(t), int(c), c < state.channels ? *state.at(t, c) : A(0));
  }
}

/// Copies the positions of a state from a ring. Without an initial state, positions before 0 are zero. Called by all
/// threads of the group; does not synchronize.
template <class Group, class A, lanes Lanes>
TCNCA_NOINLINE void store_history(Group group, ring<A, Lanes> r, layer_state<A> const& state, bool has_initial_state) {
  constexpr int channels = Lanes.channels();
  for (index_t i = group.rank(); i < state.history * channels; i += group.size()) {
    index_t const c = i % channels, t = state.end - state.history + i / channels;
    if (c < state.channels) *state.at(t, c) = t >= 0 || has_initial_state ? r.load_sample(uint32(t), int(c)) : A(0);
  }
}

/// Pack p at position t of the gradient of a state; zero outside of its positions. Called by one thread.
template <lanes Lanes, class A>
TCNCA_NOINLINE pack<A, Lanes.width> load_state_gradient(layer_state<A const> const& state, index_t t, int p) {
  auto g = broadcast<Lanes.width>(A(0));
  TCNCA_UNROLL
  for (int i = 0; i < Lanes.width; i++) {
    index_t const position = Lanes.along_length ? t + i : t, c = Lanes.along_length ? 0 : p * Lanes.width + i;
    if (c < state.channels && position >= state.end - state.history && position < state.end)
      g.set_lane(i, *state.at(position, c));
  }
  return g;
}

/// Writes pack p at position t < 0 of the gradient of the initial state; `valid` positions are left of the tile. Called
/// by one thread.
template <lanes Lanes, class A>
TCNCA_NOINLINE void store_state_gradient(layer_state<A> const& state, index_t t, int p, index_t valid,
                                         pack<A, Lanes.width> g) {
  TCNCA_UNROLL
  for (int i = 0; i < Lanes.width; i++) {
    if (Lanes.along_length && i >= valid) continue;
    index_t const c = Lanes.along_length ? 0 : p * Lanes.width + i;
    if (c < state.channels) *state.at(Lanes.along_length ? t + i : t, c) = g.lane(i);
  }
}

}  // namespace detail

}  // namespace tcnca
