// Copies between a layer's part of a state and the window of the layer.
#pragma once
#include "../state.hpp"
#include "partial.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// A ring of positions in a thread's memory. Position t of the state is in slot `slot`.
template <class A>
struct history_ring {
  A* memory;
  index_t capacity, slot;
};

/// Copies the positions [t, t + count) from a state to a ring, or back if `Save`.
template <bool Save, lanes Lanes, class A, class U>
TCNCA_NOINLINE void copy_history(layer_state<U> const& state, index_t t, index_t count, history_ring<A> ring) {
  while (count > 0) {
    U* const at = state.at(t, 0);
    index_t const slot = state.end_slot + (t - state.end),
                  contiguous = min_of(slot < 0 ? -slot : state.history - slot, ring.capacity - ring.slot),
                  n = min_of(count, contiguous);
    A* const in_ring = ring.memory + ring.slot * Lanes.channels();
    if constexpr (Lanes.along_length) {
      if constexpr (Save) {
        __builtin_memcpy(at, in_ring, size_t(n) * sizeof(A));
      } else {
        __builtin_memcpy(in_ring, at, size_t(n) * sizeof(A));
      }
    } else {
      constexpr int W = Lanes.width;
      for (index_t i = 0; i < n; i++) {
        U* const slots = at + i * state.view.stride[2];
        if constexpr (Save) {
          store_partial<W>(slots, state.channels, load<W>(const_cast<A const*>(in_ring + i * W)));
        } else {
          store<W>(in_ring + i * W, load_partial<W>(slots, state.channels));
        }
      }
    }
    t += n, count -= n, ring.slot += n;
    if (ring.slot == ring.capacity) ring.slot = 0;
  }
}

/// Sets `count` positions from t on of a state to zero.
template <class A>
TCNCA_NOINLINE void clear_history(layer_state<A> const& state, index_t t, index_t count) {
  for (index_t i = 0; i < count; i++)
    for (index_t c = 0; c < state.channels; c++) *state.at(t + i, c) = A(0);
}

}  // namespace tcnca::detail
