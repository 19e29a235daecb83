// What the phases of a group share: the places in shared memory, and the transfer of chains between shared memory and
// registers.
#pragma once
#include "../../block/activation.hpp"
#include "tile.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The output of a layer from its sum and its newest input.
template <conv_stack_shape Shape, class A>
TCNCA_HOST_DEVICE pack<A, 1> layer_activation(pack<A, 1> sum, pack<A, 1> in) {
  auto const y = activate<Shape.act>(sum).value;
  return Shape.residual_span() > 0 ? y + in : y;
}

template <bool Condition, class Then, class Else>
struct conditional_type {
  using type = Then;
};
template <class Then, class Else>
struct conditional_type<false, Then, Else> {
  using type = Else;
};
template <bool Condition, class Then, class Else>
using conditional = typename conditional_type<Condition, Then, Else>::type;

/// The group of a register-phase kernel. Members without another note are called by all threads and do not synchronize.
template <class Group, element Element, conv_stack_shape Shape, layer_range Layers>
struct phase_group {
  using T = Element;
  using A = accumulate_t<T>;
  using value = pack<A, 1>;
  static constexpr conv_stack_phase_plan Plan = phase_forward_plan<T, Shape, Layers>;
  static constexpr int phases = Plan.count, threads = Plan.threads, tile = Plan.tile;
  static constexpr int vector = 16 / int(sizeof(A)), first_layer = Layers.first;

  Group group;
  warp_of<Group> warp{};
  A* const shared;

  TCNCA_HOST_DEVICE phase_group(Group g, A* memory) : group(g), shared(memory) {}

  TCNCA_HOST_DEVICE T* stage() const { return reinterpret_cast<T*>(shared + Plan.stage_offset); }
  TCNCA_HOST_DEVICE A* weight(int layer, int tap) const {
    return shared + Plan.weight_offset + (layer - first_layer) * Plan.weight_step + tap;
  }
  TCNCA_HOST_DEVICE A* bias(int layer) const {
    return shared + Plan.weight_offset + Layers.count() * Plan.weight_step + layer - first_layer;
  }
  /// Slot in a layer's part of a state: of position 0 or, if `end`, of the first one after the sequence.
  TCNCA_HOST_DEVICE int& slot(int layer, bool end) const {
    return reinterpret_cast<int*>(shared + Plan.slot_offset)[2 * (layer - first_layer) + end];
  }
  /// Values before the outputs of a chain that the layers after this one need.
  template <int I>
  TCNCA_HOST_DEVICE static constexpr int halo_after(int layer) {
    int sum = 0;
    for (int l = layer + 1; l < Plan.phase[I].last; l++) sum += int(Shape.history(l)) / Plan.phase[I].stride;
    return sum;
  }

  /// Input p of phase I > 0; before the tile it is in the history.
  template <int I>
  TCNCA_HOST_DEVICE A* input(int p) const {
    constexpr padded_layout place = Plan.buffer[I - 1];
    constexpr int before = Plan.history_offset[I - 1], area = Plan.area(I - 1);
    return shared + (p < 0 ? before : area) + place(p);
  }
  /// The barrier after phase I, and the inputs of phase I that the next tile needs.
  template <int I>
  TCNCA_HOST_DEVICE void keep_history() const {
    constexpr int history = Plan.history[I - 1], values = divide_up(history, threads);
    int const rank = group.rank();
    if constexpr (values <= 16) {
      array<value, max_of(values, 1)> tail;
      TCNCA_UNROLL
      for (int i = 0; i < values; i++) {
        int const p = tile - history + rank + i * threads;  // a position after the tile is not used
        tail[i] = load<1>(input<I>((i + 1) * threads <= history ? p : min_of(p, tile - 1)));
      }
      group.sync();
      TCNCA_UNROLL
      for (int i = 0; i < values; i++)
        if (rank + i * threads < history) store<1>(input<I>(rank + i * threads - history), tail[i]);
    } else {
      group.sync();
      for (int i = rank; i < history; i += threads) *input<I>(i - history) = *input<I>(tile - history + i);
      group.sync();
    }
  }
};

}  // namespace tcnca::detail
