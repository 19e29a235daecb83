// The memory of one thread that walks along a sequence in blocks: the windows of all layers, and the parameters.
#pragma once
#include "../../block/memory.hpp"
#include "../shape.hpp"
#include "../tuning.hpp"
#include "window.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Compile-time properties of a stack that is walked in blocks. A walk has positions of its own: a layer that looks
/// ahead is a causal layer whose outputs come later. At walk position s the inputs of layer l are those of position
/// s - look_ahead_before(l, direction) of the sequence.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_vector_plan {
  using A = accumulate_t<T>;
  static constexpr int layers = Shape.layers(), taps = Shape.taps;
  static constexpr lanes Lanes{min_of(Policy.width, native_lanes<A>), 1, Shape.order == layout::batch_channels_length};
  static constexpr int W = Lanes.width, channels = Lanes.channels();
  static constexpr int block_vectors = detail::block_vectors<taps>;
  using block = detail::vector_block<A, W, taps>;
  static constexpr index_t block_positions = block_vectors * Lanes.positions();

  /// Sum of the look-aheads of the layers before this one.
  TCNCA_HOST_DEVICE static constexpr index_t look_ahead_before(int layer, int direction) {
    index_t sum = 0;
    for (int l = 0; l < layer; l++) sum += Shape.look_ahead(l, direction);
    return sum;
  }
  /// Walk positions between an input of the residual that starts at this layer and the output to which it is added.
  TCNCA_HOST_DEVICE static constexpr index_t residual_delay(int layer, int direction) {
    return Shape.starts_residual(layer)
               ? look_ahead_before(layer + Shape.residual_span(), direction) - look_ahead_before(layer, direction)
               : 0;
  }
  template <int Layer, int Direction>
  using window = detail::layer_window<A, Lanes, taps, Shape.dilation(Layer), residual_delay(Layer, Direction)>;

  /// Rows of `channels` parameters of one direction: taps, biases, omega.
  static constexpr int parameter_rows = Shape.parameters_per_direction() + (Shape.skip ? 1 : 0);
  static constexpr index_t line = 64 / index_t(sizeof(A));
  static constexpr index_t parameter_elements = round_up(index_t(parameter_rows) * channels, line);
  /// Where a layer's window begins, in elements; for `layers` the elements of all windows.
  template <int Layer, int Direction>
  TCNCA_HOST_DEVICE static constexpr index_t window_offset() {
    if constexpr (Layer == 0) {
      return 0;
    } else {
      return window_offset<Layer - 1, Direction>() + round_up(window<Layer - 1, Direction>::elements(), line);
    }
  }
  /// Elements of the parameters and the windows of one channel, or of one pack of channels.
  static constexpr index_t elements =
      parameter_elements + max_of(window_offset<layers, 0>(), window_offset<layers, Shape.directions() - 1>());
  /// Packs of channels that an item may have: x and y are then accessed in longer rows, while all windows remain in the
  /// second cache.
  static constexpr int max_packs = Lanes.along_length                                      ? 1
                                   : 4 * elements * index_t(sizeof(A)) <= index_t(5) << 18 ? 4
                                   : 2 * elements * index_t(sizeof(A)) <= index_t(5) << 18 ? 2
                                                                                           : 1;
};

namespace detail {

/// The windows of the first `Layers` layers.
template <class Plan, int Direction, int Layers = Plan::layers>
struct layer_windows : layer_windows<Plan, Direction, Layers - 1> {
  typename Plan::template window<Layers - 1, Direction> own;
  TCNCA_HOST_DEVICE explicit layer_windows(typename Plan::A* memory)
      : layer_windows<Plan, Direction, Layers - 1>(memory),
        own{memory + Plan::template window_offset<Layers - 1, Direction>()} {}
  /// The same windows in other memory, at the same position of the walk.
  TCNCA_HOST_DEVICE layer_windows(layer_windows const& other, typename Plan::A* memory)
      : layer_windows<Plan, Direction, Layers - 1>(other, memory), own(other.own) {
    own.memory = memory + Plan::template window_offset<Layers - 1, Direction>();
  }

  template <int Layer>
  TCNCA_HOST_DEVICE auto& of() {
    return layer_windows<Plan, Direction, Layer + 1>::own;
  }
};
template <class Plan, int Direction>
struct layer_windows<Plan, Direction, 0> {
  TCNCA_HOST_DEVICE explicit layer_windows(typename Plan::A*) {}
  TCNCA_HOST_DEVICE layer_windows(layer_windows const&, typename Plan::A*) {}
};

}  // namespace detail

}  // namespace tcnca
