// The part of a state that belongs to one row, for the register-phase kernel.
#pragma once
#include "../pass.hpp"
#include "../state.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Slots of the layers of one batch and channel. A null pointer: there is no state.
template <class U, conv_stack_shape Shape>
struct state_row {
  U* data = nullptr;
  index_t stride = 0;

  TCNCA_HOST_DEVICE static state_row of(sequence_view<U> const& view, index_t batch, index_t channel, bool used) {
    return {used ? view.at(batch, channel, 0) : nullptr, view.stride[2]};
  }
  /// The slot of absolute position t in a layer's part.
  TCNCA_HOST_DEVICE static int slot(int layer, index_t t) {
    index_t const history = Shape.history(layer);
    return history > 0 ? int(modulo(t, history)) : 0;
  }
  /// The input of a layer `distance` positions after that of a slot; -history <= distance <= 0.
  TCNCA_HOST_DEVICE U& at(int layer, int slot, int distance) const {
    int const s = slot + distance;
    return data[(Shape.history_before(layer) + (s < 0 ? s + int(Shape.history(layer)) : s)) * stride];
  }
};

}  // namespace tcnca::detail
