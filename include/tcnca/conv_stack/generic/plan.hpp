// Parameters and memory layout of the forward kernel: the tile of each layer and the place of each ring buffer.
#pragma once
#include "../../block/dilated.hpp"
#include "../../block/memory.hpp"
#include "../../block/packed.hpp"
#include "../../core/tensor.hpp"
#include "../state.hpp"
#include "../tuning.hpp"
#include "schedule.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Compile-time properties of a stack under a policy.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_tiling {
  static constexpr int layers = Shape.layers();
  static constexpr bool along_length = Shape.order == layout::batch_channels_length;
  /// Positions that dilated_sum may access from any position on.
  static constexpr int overrun() {
    int n = Policy.width * Policy.outputs_per_thread;
    for (int l = 0; l < layers; l++)
      if (Shape.dilation(l) < Policy.width)
        n = max_of(n, Policy.width * Policy.outputs_per_thread +
                          unrolled_span<Shape.taps>(int(Shape.dilation(l)), Policy.width));
    return along_length && Policy.width > 1 ? n : 0;
  }
  static constexpr lanes lane_order{Policy.width, along_length ? 1 : Policy.packs, along_length, overrun()};

  static_assert(Policy.width >= 1 && (Policy.width & (Policy.width - 1)) == 0,
                "tcnca::conv_stack: a policy's width must be a power of two");
  static_assert(Policy.outputs_per_thread >= 1, "tcnca::conv_stack: a policy's outputs_per_thread must be at least 1");
  static_assert(
      Policy.tile <= 1 << 24 && Policy.tile_max >= 0 && Policy.tile_max <= 1 << 24 && Policy.single_tile_limit >= 0 &&
          Policy.single_tile_limit <= 1 << 24,
      "tcnca::conv_stack: a policy's tile, tile_max and single_tile_limit must be at most 2^24, and not negative");
  static_assert(Policy.segment_fields >= 0, "tcnca::conv_stack: a policy's segment_fields must not be negative");
  static_assert(Policy.threads >= 1 && Policy.packs >= 1 && Policy.threads % lane_order.packs == 0,
                "tcnca::conv_stack: a policy's threads must be a multiple of its packs (on the CPU both are 1)");
  static_assert(Policy.tile >= 1 && Policy.tile % max_of(Policy.width, int(16 / sizeof(T))) == 0,
                "tcnca::conv_stack: a policy's tile must be a multiple of its width and of 16 bytes of elements");

  /// The tile of a layer: a multiple of the previous layer's, so that complete tiles of one layer complete tiles of the
  /// next.
  static constexpr index_t tile(int layer) {
    index_t t = Policy.tile;
    for (int i = 0; i <= layer; i++) {
      index_t const strided_set = Policy.outputs_per_thread * Shape.dilation(i);
      if (strided_set > t && round_up(strided_set, t) <= Policy.tile_max) t = round_up(strided_set, t);
    }
    return t;
  }
  static constexpr index_t longest_tile = tile(layers - 1);
  /// Sequences up to this length are a single tile in all layers, if shared memory holds all rings: a walk in steps
  /// costs more.
  static constexpr index_t single_tile = round_up(Policy.single_tile_limit, index_t(Policy.tile));
  /// Input up to this position completes every layer, forward and backward, whatever its latency.
  TCNCA_HOST_DEVICE static constexpr index_t flush_position(index_t length) {
    return round_up(length + Shape.receptive_field() + 2 * layers * max_of(longest_tile, single_tile),
                    index_t(Policy.tile));
  }
  static constexpr conv_stack_schedule<layers> schedule(bool is_single_tile, index_t length) {
    conv_stack_schedule<layers> s;
    for (int l = 0; l < layers; l++) s.tile[l] = is_single_tile ? single_tile : tile(l);
    s.step = is_single_tile ? flush_position(length) : tile(0);
    s.single_tile = is_single_tile;
    return s;
  }

  /// Tiles whose taps extend past an end of the sequence are split into subtiles of this many positions. Each subtile
  /// skips the taps that lie outside entirely.
  TCNCA_HOST_DEVICE static constexpr index_t boundary_subtile(int layer, index_t tile) {
    index_t const packs = Policy.outputs_per_thread * lane_order.positions();
    if (!lane_order.mirrored() || Shape.history(layer) <= packs) return tile;
    return min_of(tile, round_up(max_of(Shape.dilation(layer), packs), index_t(lane_order.positions())));
  }
  /// Zeros before a sequence that the subtiles of a layer may read. A subtile that starts at a multiple of the dilation
  /// reads at most whole dilations before the sequence. `unaligned`: tiles start anywhere, so any number of positions
  /// up to a subtile may be read.
  TCNCA_HOST_DEVICE static constexpr index_t zeros_before(int layer, index_t tile, index_t length,
                                                          bool unaligned = false) {
    if (Shape.history(layer) == 0) return 0;
    // 32 bits hold the dilation of a layer with a history, and every tile.
    index_t const step = boundary_subtile(layer, tile);
    uint32 const d = uint32(Shape.dilation(layer)), last = uint32(min_of(step, max_of(index_t(1), length)) - 1);
    bool const whole_dilations = !unaligned && (length <= step || (uint32(step) % d == 0 && uint32(tile) % d == 0));
    return round_up(min_of(Shape.history(layer), index_t(whole_dilations ? last / d * d : last)),
                    index_t(lane_order.positions()));
  }
  /// Zeros after a sequence for a layer with this look-ahead; at least the rest of a pack.
  TCNCA_HOST_DEVICE static constexpr index_t zeros_after(int layer, index_t tile, index_t look_ahead) {
    return min_of(look_ahead, boundary_subtile(layer, tile)) + lane_order.positions();
  }
  static constexpr bool looks_ahead = Shape.dir != direction::causal;
  /// Whether the gradients of a residual are others than those of the sums of the layer where it ends.
  static constexpr bool has_residual_gradients = Shape.act != activation::none && !Shape.post_activation;
  /// Rows of the parameters of one direction with omega: weights and biases in the group's memory, and the sums of
  /// their gradients.
  static constexpr int parameter_rows = Shape.parameters_per_direction() + (Shape.skip ? 1 : 0);
  TCNCA_HOST_DEVICE static constexpr size_t weight_elements() {
    return size_t(parameter_rows) * size_t(lane_order.channels());
  }
};

/// The memory of each kind of buffer of a kernel. On a GPU a buffer of a whole sequence is in global memory.
template <conv_stack_policy Policy>
struct conv_stack_spaces {
  memory_space weight = memory_space::shared, sums = memory_space::shared, rings = memory_space::shared;
  memory_space sequences = Policy.shared_memory_bytes == ~size_t(0) ? memory_space::shared : memory_space::global;
};

/// Longer than every ring: for the memory of a walk whose rings have their full length.
inline constexpr index_t long_sequence = index_t(1) << 40;

/// Whether a plan's shared memory is within the policy's limit.
template <class A, conv_stack_policy Policy>
constexpr bool fits_shared_memory(auto const& plan) {
  return plan.shared_memory <= Policy.shared_memory_bytes / sizeof(A);
}

/// Schedule and memory of a forward walk.
template <int Layers>
struct conv_stack_forward_plan {
  conv_stack_schedule<Layers> schedule;
  detail::array<memory_place, Layers> input = {};  // rings of the newest inputs of each layer
  memory_place weight;
  memory_place staging;                          // see tile_writer
  memory_place partial;                          // the first direction's outputs of a segment, if bidirectional
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// Parameters of a forward pass, common to all groups.
template <element T, int Layers, element Weight = T>
struct conv_stack_forward_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 3> weight;
  tensor_view<Weight const, 2> bias;
  tensor_view<Weight const, 1> omega;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T> y;
  sequence_view<accumulate_t<T>> state_out;
  conv_stack_slots<Layers> slots = {};
  index_t segments = 1, segment_length = 0;  // each sequence is split into segments, processed by different groups
  int packs = 1;                             // of channels per item of the CPU's kernel
  bool x_vectorizable = false, y_vectorizable = false;  // packs of x and y may be accessed as vectors
  bool y_streaming = false;  // non-temporal stores: the rows of y are aligned, and y is larger than the caches
  conv_stack_forward_plan<Layers> plan = {};
  // Of the generic kernel. If sequences are packed, the extents of x are their number and their greatest length.
  sequence_table sequences = {};
  index_t step_limit = 0;  // see use_step_kernel()
};

/// The plan for segments of `segment` outputs, for which a group walks over `length` positions, with or without a
/// state.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto place_conv_stack_forward(conv_stack_spaces<Policy> const& spaces, bool single_tile, index_t length,
                                        index_t segment, bool state) {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  constexpr lanes order = tiling::lane_order;
  constexpr index_t pack = order.positions();
  constexpr int last_direction = Shape.directions() - 1;
  conv_stack_forward_plan<tiling::layers> plan;
  plan.schedule = tiling::schedule(single_tile, length);
  memory_planner<accumulate_t<T>> memory;
  plan.weight = memory.place(spaces.weight, tiling::weight_elements());
  if (order.mirrored())
    plan.staging = memory.place(
        spaces.rings, size_t(min_of(single_tile ? tiling::single_tile : tiling::longest_tile, length) + pack));
  for (int l = 0; l < tiling::layers; l++) {
    index_t const tile = plan.schedule.tile[l], input_tile = plan.schedule.tile[l > 0 ? l - 1 : 0];
    // Positions in use between two tiles: what a tile reads; with look-ahead also the inputs that arrive before it is
    // computed and the zeros after the end.
    index_t in_use = Shape.history(l) + tile + (tiling::looks_ahead ? input_tile + 2 * tile : 0);
    if (Shape.starts_residual(l)) {  // kept until the last layer of the residual adds it
      index_t lag = input_tile + tile;
      for (int i = l; i < l + Shape.residual_span(); i++) {
        if (tiling::looks_ahead) lag += Shape.look_ahead(i, last_direction) + tiling::tile(i);
        else if (i == l + Shape.residual_span() - 1) lag += tiling::tile(i);
      }
      in_use = max_of(in_use, lag);
    }
    index_t const before = state ? Shape.history(l) : tiling::zeros_before(l, tile, length);
    index_t const all = before + length + tiling::zeros_after(l, tile, Shape.look_ahead(l, last_direction));
    plan.input[l] =
        memory.template place_ring<order>(spaces.rings, (single_tile ? all : min_of(in_use, all)) + 2 * pack);
  }
  if (Shape.dir == direction::bidirectional)
    plan.partial = memory.place(spaces.sequences, size_t(segment + pack) * order.channels());
  plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
  return plan;
}

/// The spaces of a forward kernel: all rings are in shared memory if those of a long sequence fit there.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
inline constexpr conv_stack_spaces<Policy> conv_stack_forward_spaces = [] {
  conv_stack_spaces<Policy> spaces;
  auto const fits = [&] {
    return fits_shared_memory<accumulate_t<T>, Policy>(
        place_conv_stack_forward<T, Shape, Policy>(spaces, false, long_sequence, 0, true));
  };
  if (!fits()) spaces.rings = memory_space::global;
  if (!fits()) spaces.weight = memory_space::global;
  return spaces;
}();

/// The plan of a call, as for place_conv_stack_forward.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto make_conv_stack_forward_plan(index_t length, index_t segment, bool state) {
  constexpr conv_stack_spaces<Policy> spaces = conv_stack_forward_spaces<T, Shape, Policy>;
  // A segment must not take in the rest of the sequence.
  if (spaces.rings == memory_space::shared &&
      length <= min_of(segment, conv_stack_tiling<T, Shape, Policy>::single_tile)) {
    auto const plan = place_conv_stack_forward<T, Shape, Policy>(spaces, true, length, segment, state);
    if (fits_shared_memory<accumulate_t<T>, Policy>(plan)) return plan;
  }
  return place_conv_stack_forward<T, Shape, Policy>(spaces, false, length, segment, state);
}

}  // namespace tcnca
