// How a stack is laid out in fast memory: the tile of each layer, and a place for each ring.
#pragma once
#include "../block/dilated.hpp"
#include "../block/memory.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Tuning of a convolution stack: plain values, compared field by field.
struct conv_stack_policy {
  int width;                   ///< lanes of a pack
  int packs;                   ///< packs side by side in a position, where the lanes are channels
  int outputs_per_thread;      ///< outputs, a dilation apart, that share their inputs in registers
  int tile;                    ///< positions of a tile, a multiple of the width
  int tile_max;                ///< a layer whose run is longer than the tile gets a longer one, up to this
  index_t single_tile_limit;   ///< sequences up to this length are one tile, if near memory holds them in all layers
  int threads;                 ///< of a group
  size_t shared_memory_bytes;  ///< fast memory of a group; what does not fit goes to the workspace
  size_t streaming_bytes;      ///< results of at least so many bytes go past the caches; 0: never
  index_t
      segment_fields;  ///< where there are few sequences, each is cut in segments of at least so many receptive fields; 0: never

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
    int m = Policy.width * Policy.outputs_per_thread;
    for (int l = 0; l < layers; l++)
      if (Shape.dilation(l) < Policy.width)
        m = max_of(m, Policy.width * Policy.outputs_per_thread +
                          dilated_span<Shape.taps>(int(Shape.dilation(l)), Policy.width));
    return along_length && Policy.width > 1 ? m : 0;
  }
  static constexpr lanes lane_order{Policy.width, along_length ? 1 : Policy.packs, along_length, margin()};

  static_assert(Policy.width >= 1 && (Policy.width & (Policy.width - 1)) == 0,
                "tcnca::conv_stack: a policy's width must be a power of two");
  static_assert(Policy.outputs_per_thread >= 1, "tcnca::conv_stack: a policy's run must be at least 1");
  static_assert(Policy.threads >= 1 && Policy.packs >= 1 && Policy.threads % lane_order.packs == 0,
                "tcnca::conv_stack: a policy's threads must be a multiple of its packs (on the CPU both are 1)");
  static_assert(Policy.tile >= 1 && Policy.tile % max_of(Policy.width, int(16 / sizeof(T))) == 0,
                "tcnca::conv_stack: a policy's tile must be a multiple of its width and of 16 bytes of elements");

  /// Tiles are multiples of those of the layer before, so that a layer which has seen whole tiles leaves whole tiles.
  static constexpr index_t tile(int layer) {
    index_t t = Policy.tile;
    for (int i = 0; i <= layer; i++) {
      index_t const run = Policy.outputs_per_thread * Shape.dilation(i);
      if (run > t && round_up(run, t) <= Policy.tile_max) t = round_up(run, t);
    }
    return t;
  }
  static constexpr index_t longest_tile = tile(layers - 1);
  /// Sequences up to this length pass from layer to layer whole, in one tile, if near memory holds all rings whole: stepping through the
  /// delays would cost more.
  static constexpr index_t in_one_step = round_up(Policy.single_tile_limit, index_t(Policy.tile));
  /// So much input completes every layer, forward and backward, whatever it waits for.
  TCNCA_HOST_DEVICE static constexpr index_t beyond(index_t length) {
    return round_up(length + Shape.receptive_field() + 2 * layers * max_of(longest_tile, in_one_step),
                    index_t(Policy.tile));
  }

  /// Where its taps run over an end of the sequence, a tile falls in pieces this long, and each leaves out the taps that lie outside wholly.
  TCNCA_HOST_DEVICE static constexpr index_t subtile(int layer, index_t tile) {
    index_t const run = Policy.outputs_per_thread * lane_order.positions();
    if (lane_order.front() == 0 || Shape.history(layer) <= run) return tile;
    return min_of(tile, round_up(max_of(Shape.dilation(layer), run), index_t(lane_order.positions())));
  }
  /// How far before the beginning of a sequence the pieces of a layer read. Pieces that all begin at whole dilations read whole dilations,
  /// and so does the only one; tiles that begin `anywhere` have others.
  TCNCA_HOST_DEVICE static constexpr index_t reach(int layer, index_t tile, index_t length, bool anywhere = false) {
    index_t const d = Shape.dilation(layer), step = subtile(layer, tile),
                  last = min_of(step, max_of(index_t(1), length)) - 1;
    bool const whole = !anywhere && (length <= step || (step % d == 0 && tile % d == 0));
    return round_up(min_of(Shape.history(layer), whole ? last / d * d : last), index_t(lane_order.positions()));
  }
  /// The same past its end, for a layer that reads `ahead` of its outputs; at least the rest of a pack.
  TCNCA_HOST_DEVICE static constexpr index_t reach_ahead(int layer, index_t tile, index_t ahead) {
    return min_of(ahead, subtile(layer, tile)) + lane_order.positions();
  }
  static constexpr bool looks_ahead = Shape.dir != direction::causal;
  /// Elements of the taps, biases and omega of one direction_index.
  TCNCA_HOST_DEVICE static constexpr size_t weight_elements() {
    return size_t(layers * (Shape.taps + (Shape.bias ? 1 : 0)) + (Shape.skip ? 1 : 0)) * lane_order.channels();
  }
  /// Rows of sums over a sequence that the backward pass keeps: of one direction_index's weights, then its biases; then of omega.
  static constexpr int rows_per_direction = layers * (Shape.taps + (Shape.bias ? 1 : 0)),
                       sum_rows = rows_per_direction + (Shape.skip ? 1 : 0);
};

/// Tiles and rings of a forward pass.
template <int Layers>
struct conv_stack_forward_plan {
  detail::array<index_t, Layers> tile = {};
  index_t step = 0;  // how much of x comes in at a time: a tile, or all of a short sequence
  detail::array<memory_place, Layers> input = {};  // a ring of each layer's newest inputs
  memory_place weight, spare, partial;
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// The plan for segments of `segment` outputs, for which a group walks over `length` positions, with or without a state before them.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto make_conv_stack_forward_plan(index_t length, index_t segment, bool state) {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  constexpr index_t pad = tiling::lane_order.positions();
  auto const plan_of = [&](bool single_tile) {
    conv_stack_forward_plan<tiling::layers> plan;
    memory_planner<accumulate_t<T>> memory{Policy.shared_memory_bytes};
    plan.weight = memory.place(tiling::weight_elements());
    if (tiling::lane_order.front() > 0)
      plan.spare = memory.place(size_t(min_of(single_tile ? tiling::in_one_step : tiling::longest_tile, length) + pad));
    for (int l = 0; l < tiling::layers; l++) {
      index_t const tile = plan.tile[l] = single_tile ? tiling::in_one_step : tiling::tile(l),
                    arrives = l == 0 ? tile : plan.tile[l - 1];
      // What a tile reads, what may arrive before it is read, and, where a layer looks ahead, the zeros after the end.
      index_t steady = Shape.history(l) + tile + (tiling::looks_ahead ? arrives + 2 * tile : 0);
      if (Shape.starts_residual(l)) {  // the residual is added when the last layer of the residual gets there
        index_t behind = arrives + tile;
        for (int i = l; i < l + Shape.residual_span(); i++)
          behind += tiling::looks_ahead                  ? Shape.look_ahead(i, Shape.directions() - 1) + tiling::tile(i)
                    : i == l + Shape.residual_span() - 1 ? tiling::tile(i)
                                                         : 0;
        steady = max_of(steady, behind);
      }
      index_t const before = state ? Shape.history(l) : tiling::reach(l, tile, length);
      index_t const all = before + length + tiling::reach_ahead(l, tile, Shape.look_ahead(l, Shape.directions() - 1));
      plan.input[l] =
          memory.template place_ring<tiling::lane_order>((single_tile ? all : min_of(steady, all)) + 2 * pad);
    }
    if (Shape.dir == direction::bidirectional)
      plan.partial = memory.place(size_t(segment + pad) * tiling::lane_order.channels());
    plan.step = single_tile ? tiling::beyond(length) : plan.tile[0];
    plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
    return plan;
  };
  if (length <= min_of(segment, tiling::in_one_step)) {  // of a segment, the rest of the sequence must not come in
    auto const plan = plan_of(true);
    if (plan.global_scratch == 0) return plan;
  }
  return plan_of(false);
}

}  // namespace tcnca
