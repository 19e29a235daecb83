// The order in which a walk along a sequence computes the tiles of all layers, and how far each layer lags behind the
// input.
#pragma once
#include "../../core/config.hpp"
#include "../shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {

/// The positions of a tile.
struct tile_size {
  index_t positions = 0;
  uint64 reciprocal = 0;  // 2^64 / positions, rounded up

  constexpr tile_size() = default;
  constexpr tile_size(index_t n) : positions(n), reciprocal(n > 1 ? ~uint64(0) / uint64(n) + 1 : 0) {}
  TCNCA_HOST_DEVICE constexpr operator index_t() const { return positions; }

  /// n >= 0 rounded down to whole tiles. A division would take as long as the sums of many positions: most tiles are
  /// powers of two, and a GPU multiplies by the reciprocal, which is exact while n * positions is below 2^64.
  TCNCA_HOST_DEVICE constexpr index_t round_down(index_t n) const {
#if defined(__CUDA_ARCH__)
    if (!__builtin_is_constant_evaluated())
      return positions > 1 ? index_t(__umul64hi(uint64(n), reciprocal)) * positions : n;
#endif
    return (positions & (positions - 1)) == 0 ? n & -positions : n / positions * positions;
  }
};

/// Outputs of a level that are complete once its inputs are known up to position `inputs`: whole tiles, counted from
/// `origin`.
TCNCA_HOST_DEVICE constexpr index_t completed_tiles(index_t inputs, index_t look_ahead, tile_size const& tile,
                                                    index_t origin) {
  index_t const n = inputs - look_ahead - origin;
  return n <= 0 ? origin : origin + tile.round_down(n);
}

}  // namespace detail

/// What one step of a walk computes of one level: the positions [before, after), in whole tiles counted from `origin`.
/// They may extend past the sequence, where there is nothing to compute.
struct level_progress {
  index_t origin, before, after;

  /// The next level, which computes from this one.
  TCNCA_HOST_DEVICE constexpr level_progress next(index_t look_ahead, detail::tile_size const& tile,
                                                  index_t next_origin) const {
    return {next_origin, detail::completed_tiles(before, look_ahead, tile, next_origin),
            detail::completed_tiles(after, look_ahead, tile, next_origin)};
  }
};

/// Schedule of a walk. Each step takes in `step` positions of x. Then each layer in turn computes all tiles whose
/// inputs are complete; a backward walk continues with the gradients, from the last layer to the first. A level is
/// delayed by its look-ahead and by incomplete tiles of the level before it. The delays are constant, so a ring buffer
/// per level is enough.
///
/// Forward, two causal layers, tiles of 4 and 8 positions, the positions that each step computes:
///
///     step         1        2        3        4
///     x            [0, 4)   [4, 8)   [8,12)   [12,16)
///     layer 0      [0, 4)   [4, 8)   [8,12)   [12,16)
///     layer 1               [0, 8)            [8,16)     waits for a whole tile
///
/// Backward, two causal layers of 2 taps, dilations 1 and 2, tiles of 4, packs of 2 positions. The gradient of an input
/// needs the gradients of outputs up to one history (1 and 2 positions) later. The tiles of a gradient level start
/// earlier than those of the level before it by that look-ahead, rounded up to whole packs, so that no level waits for
/// a partial tile:
///
///     step         1        2        3        4
///     x            [0, 4)   [4, 8)   [8,12)   [12,16)
///     layer 0      [0, 4)   [4, 8)   [8,12)   [12,16)
///     layer 1      [0, 4)   [4, 8)   [8,12)   [12,16)    and the gradients of its outputs
///     gradient 1   [-2,2)   [2, 6)   [6,10)   [10,14)    of the inputs of layer 1
///     gradient 0   [-4,0)   [0, 4)   [4, 8)   [8,12)     of x
///
/// Gradients at negative positions belong to the state.
template <int Layers>
struct conv_stack_schedule {
  detail::array<detail::tile_size, Layers> tile = {};  // each a multiple of the previous layer's
  index_t step = 0;          // positions of x per step: a tile of layer 0, or more than the sequence
  bool single_tile = false;  // the sequence is one tile in all layers

  /// The step that takes in x[before, before + step) of a walk from `origin`. The first step starts before all origins.
  TCNCA_HOST_DEVICE constexpr level_progress input(index_t origin, index_t before) const {
    return {origin, before > origin ? before : -(index_t(1) << 62), before + step};
  }
  /// The outputs of a layer, from the progress of its inputs.
  TCNCA_HOST_DEVICE constexpr level_progress output(level_progress const& inputs, int layer, index_t look_ahead) const {
    return inputs.next(look_ahead, tile[layer], inputs.origin);
  }
  /// The gradients of a layer's inputs, from the progress of the gradients of its outputs. look_ahead: how much later
  /// than an input the last output is that depends on it. `early`: positions before 0 that must be computed for the
  /// state.
  TCNCA_HOST_DEVICE constexpr level_progress input_gradient(level_progress const& output_gradients, int layer,
                                                            index_t look_ahead, index_t early,
                                                            index_t pack_positions) const {
    return output_gradients.next(look_ahead, tile[layer],
                                 single_tile ? -tile[layer].round_down(early + tile[layer] - 1)
                                             : output_gradients.origin - round_up(look_ahead, pack_positions));
  }
};

/// Bounds on how many positions each level lags behind x after any step of a backward walk, if sequences are not a
/// single tile. Level l < layers: inputs of layer l. Level 2 * layers - 1 - l: gradients of the outputs of layer l.
/// Level 2 * layers: grad_x. For a bidirectional stack the bounds hold in both directions.
template <conv_stack_shape Shape>
struct conv_stack_lags {
  static constexpr int layers = Shape.layers();
  detail::array<index_t, 2 *layers + 1> least = {}, most = {};

  constexpr conv_stack_lags(conv_stack_schedule<layers> const& schedule, index_t pack_positions) {
    constexpr int last_direction = Shape.directions() - 1;
    for (int l = 0; l < layers; l++) {
      index_t const look_ahead = Shape.look_ahead(l, last_direction), tile = schedule.tile[l];
      // Without look-ahead the inputs are whole tiles of the previous layer.
      index_t const partial_tile = look_ahead == 0 ? tile - schedule.tile[l > 0 ? l - 1 : 0] : tile;
      least[l + 1] = least[l] + Shape.look_ahead(l, 0);
      most[l + 1] = most[l] + look_ahead + partial_tile;
    }
    for (int i = layers; i < 2 * layers; i++) {
      int const l = 2 * layers - 1 - i;
      least[i + 1] = least[i] + Shape.history(l) - Shape.look_ahead(l, last_direction);
      most[i + 1] = most[i] + round_up(Shape.history(l) - Shape.look_ahead(l, 0), pack_positions);
    }
  }
};

}  // namespace tcnca
