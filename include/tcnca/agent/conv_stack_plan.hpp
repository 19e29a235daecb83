// How a stack is laid out in fast memory: the tile of each layer, and a place for each ring.
#pragma once
#include "../block/dilated.hpp"
#include "../block/memory.hpp"
#include "conv_stack_shape.hpp"

namespace tcnca {

/// Tuning of a convolution stack: plain values, compared field by field.
struct conv_stack_policy {
  int width;            ///< lanes of a pack
  int packs;            ///< packs side by side in a position, where the lanes are channels
  int run;              ///< outputs, a dilation apart, that share their inputs in registers
  int tile;             ///< positions of a tile, a multiple of the width
  int tile_max;         ///< a layer whose run is longer than the tile gets a longer one, up to this
  int threads;          ///< of a group
  size near_bytes;      ///< fast memory of a group; what does not fit goes to the workspace
  index segment_fields; ///< where there are few sequences, each is cut in segments of at least so many receptive fields; 0: never

  friend constexpr bool operator==(conv_stack_policy const&, conv_stack_policy const&) = default;
};

/// Compile-time facts about a stack under a policy.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_tiling {
  using accumulate = accumulate_t<T>;
  static constexpr int layers = Shape.layers();
  static constexpr bool along_length = Shape.order == layout::batch_channels_length;
  /// What dilated_sum reads at once.
  static constexpr int margin() {
    int m = Policy.width * Policy.run;
    for (int l = 0; l < layers; l++)
      if (Shape.dilation(l) < Policy.width) m = max(m, Policy.width * Policy.run + dilated_span<Shape.taps>(int(Shape.dilation(l)), Policy.width));
    return along_length && Policy.width > 1 ? m : 0;
  }
  static constexpr lanes lane_order{Policy.width, along_length ? 1 : Policy.packs, along_length, margin()};

  static_assert(Policy.width >= 1 && (Policy.width & (Policy.width - 1)) == 0, "tcnca::conv_stack: a policy's width must be a power of two");
  static_assert(Policy.run >= 1, "tcnca::conv_stack: a policy's run must be at least 1");
  static_assert(Policy.threads >= 1 && Policy.packs >= 1 && Policy.threads % lane_order.packs == 0,
                "tcnca::conv_stack: a policy's threads must be a multiple of its packs (on the CPU both are 1)");
  static_assert(Policy.tile >= 1 && Policy.tile % max(Policy.width, int(16 / sizeof(T))) == 0,
                "tcnca::conv_stack: a policy's tile must be a multiple of its width and of 16 bytes of elements");

  /// Tiles are multiples of those of the layer before, so that a layer which has seen whole tiles leaves whole tiles.
  static constexpr index tile(int layer) {
    index t = Policy.tile;
    for (int i = 0; i <= layer; i++) {
      index const run = Policy.run * Shape.dilation(i);
      if (run > t && round_up(run, t) <= Policy.tile_max) t = round_up(run, t);
    }
    return t;
  }
  static constexpr index longest_tile = tile(layers - 1);
  /// Sequences up to this length pass from layer to layer whole, if all rings hold them whole: stepping through the delays would cost more.
  static constexpr index in_one_step = 8 * Policy.tile;
  /// So much input completes every layer, forward and backward, whatever it waits for.
  TCNCA_HOST_DEVICE static constexpr index beyond(index length) { return round_up(length + Shape.receptive_field() + 2 * layers * longest_tile, index(Policy.tile)); }
  static constexpr bool looks_ahead = Shape.dir != direction::causal;
  /// Elements of the taps, biases and omega of one half.
  TCNCA_HOST_DEVICE static constexpr size weight_elements() {
    return size(layers * (Shape.taps + (Shape.bias ? 1 : 0)) + (Shape.skip ? 1 : 0)) * lane_order.channels();
  }
  /// Rows of sums over a sequence that the backward pass keeps: of one half's weights, then its biases; then of omega.
  static constexpr int half_rows = layers * (Shape.taps + (Shape.bias ? 1 : 0)), sum_rows = half_rows + (Shape.skip ? 1 : 0);
};

/// Tiles and rings of a forward pass.
template <int Layers>
struct conv_stack_forward_plan {
  index tile[Layers] = {};
  index step = 0;                   // how much of x comes in at a time: a tile, or all of a short sequence
  memory_place input[Layers] = {};  // a ring of each layer's newest inputs
  memory_place weight, spare, partial;
  size near = 0, far = 0;           // elements
};

/// The plan for segments of `segment` outputs, for which a group walks over `length` positions, with or without a state before them.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto make_conv_stack_forward_plan(index length, index segment, bool state) {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  conv_stack_forward_plan<tiling::layers> plan;
  memory_planner<accumulate_t<T>> memory{Policy.near_bytes};
  constexpr index pad = tiling::lane_order.positions();
  plan.weight = memory.place(tiling::weight_elements());
  if (tiling::lane_order.front() > 0) plan.spare = memory.place(size(min(max(tiling::longest_tile, tiling::in_one_step), length) + pad));
  bool all_whole = length <= tiling::in_one_step;
  for (int l = 0; l < tiling::layers; l++) {
    index const tile = plan.tile[l] = tiling::tile(l), arrives = l == 0 ? tile : plan.tile[l - 1];
    // What a tile reads, what may arrive before it is read, and, where a layer looks ahead, the zeros after the end.
    index steady = Shape.history(l) + tile + (tiling::looks_ahead ? arrives + 2 * tile : 0);
    if (Shape.starts_span(l)) {  // the residual is added when the last layer of the span gets there
      index behind = arrives + tile;
      for (int i = l; i < l + Shape.span(); i++)
        behind += tiling::looks_ahead ? Shape.lead(i, Shape.halves() - 1) + tiling::tile(i) : i == l + Shape.span() - 1 ? tiling::tile(i) : 0;
      steady = max(steady, behind);
    }
    index const before = state ? Shape.history(l) : min(Shape.history(l), min(tile, length));
    index const whole = before + length + min(tile, length);  // a short sequence fits in one piece
    all_whole = all_whole && whole <= steady;
    plan.input[l] = memory.template place_ring<tiling::lane_order>(min(steady, whole) + 2 * pad);
  }
  if (Shape.dir == direction::bidirectional) {
        plan.partial = memory.place(size(segment + pad) * tiling::lane_order.channels());
  }
  plan.step = all_whole ? tiling::beyond(length) : plan.tile[0];
  plan.near = memory.near, plan.far = memory.far;
  return plan;
}

}  // namespace tcnca
