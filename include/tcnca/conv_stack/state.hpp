// The state of a stack: for each layer a ring of its newest inputs, in the caller's memory.
#pragma once
#include "../block/pack.hpp"
#include "../block/ring.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// a modulo n, in [0, n).
TCNCA_HOST_DEVICE constexpr index_t modulo(index_t a, index_t n) {
  index_t const r = a % n;
  return r < 0 ? r + n : r;
}

/// One layer's part of a state (or of its gradient): some channels of one sequence of a batch.
template <class U>
struct layer_state {
  sequence_view<U> const& view;
  index_t batch, channel;
  index_t channels;        // from `channel` on; others of the lanes have no element
  index_t first, history;  // the layer's slots
  index_t position;        // absolute position of the sequence's first sample

  template <conv_stack_shape Shape>
  TCNCA_HOST_DEVICE static layer_state of(int layer, sequence_view<U> const& view, index_t batch, index_t channel,
                                          index_t channels, index_t position) {
    return {view, batch, channel, channels, Shape.history_before(layer), Shape.history(layer), position};
  }
  /// The element of position t, relative to the sequence, and channel c < channels.
  TCNCA_HOST_DEVICE U* at(index_t t, index_t c) const {
    return view.at(batch, channel + c, first + modulo(position + t, history));
  }
};

/// Copies a state to the positions [-history, 0) of a ring. Called by all threads of the group; does not synchronize.
template <class Group, class A, lanes Lanes>
TCNCA_NOINLINE void load_history(Group group, ring<A, Lanes> r, layer_state<A const> const& state) {
  constexpr int channels = Lanes.channels();
  for (index_t i = group.rank(); i < state.history * channels; i += group.size()) {
    index_t const c = i % channels, t = i / channels - state.history;
    r.store_sample(uint32(t), int(c), c < state.channels ? *state.at(t, c) : A(0));
  }
}

/// Copies the positions [length - history, length) of a ring to a state. Without an initial state, positions before 0
/// are zero. Called by all threads of the group; does not synchronize.
template <class Group, class A, lanes Lanes>
TCNCA_NOINLINE void store_history(Group group, ring<A, Lanes> r, layer_state<A> const& state, index_t length,
                                  bool has_initial_state) {
  constexpr int channels = Lanes.channels();
  for (index_t i = group.rank(); i < state.history * channels; i += group.size()) {
    index_t const c = i % channels, t = length - state.history + i / channels;
    if (c < state.channels) *state.at(t, c) = t >= 0 || has_initial_state ? r.load_sample(uint32(t), int(c)) : A(0);
  }
}

/// Pack p at position t of the gradient of the final state; zero outside of [length - history, length). Called by one
/// thread.
template <lanes Lanes, class A>
TCNCA_NOINLINE pack<A, Lanes.width> load_state_gradient(layer_state<A const> const& state, index_t t, int p,
                                                        index_t length) {
  auto g = broadcast<Lanes.width>(A(0));
  TCNCA_UNROLL
  for (int i = 0; i < Lanes.width; i++) {
    index_t const position = Lanes.along_length ? t + i : t, c = Lanes.along_length ? 0 : p * Lanes.width + i;
    if (c < state.channels && position >= length - state.history && position < length)
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

}  // namespace tcnca::detail
