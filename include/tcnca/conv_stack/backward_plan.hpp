// Where the backward pass of a stack keeps its rings, and how long each must be.
#pragma once
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Tiles and rings of a backward pass.
template <int Layers>
struct conv_stack_backward_plan {
  detail::array<index_t, Layers> tile = {};
  index_t longest = 0;
  index_t step = 0;          // how much of x comes in at a time: a tile, or all of a short sequence
  bool single_tile = false;  // all of it
  memory_place weight, sums, spare[2];
  // After this many steps the threads' partial sums are added to fp64 totals, one a row and channel, so that no lane sums more than about 1024
  // terms in A. 0 where the sequence is too short to need totals.
  int steps_of_a_sum = 0;
  memory_place totals;
  detail::array<memory_place, Layers> input =
      {};  // each layer's inputs, until their part in the weight gradient is done
  detail::array<memory_place, Layers> derivative = {};  // of its activation, until its gradient comes
  detail::array<memory_place, Layers> grad = {};        // gradients of its sums
  // Without an activation a sum's gradient is that of the output: these two are then the rings of the layers' gradients.
  detail::array<memory_place, Layers> residual =
      {};             // gradients of a residual's output, until they are added to that of its input
  memory_place skip;  // gradients before the final SiLU, until they are added to grad_x
  memory_place carry, total,
      partial;  // of a bidirectional stack, whole sequences: the first direction_index's output, the gradient of the sum, grad_x
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// The plan for sequences of `length`; `threads` in a group.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto make_conv_stack_backward_plan(index_t length, bool state, int threads) {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  constexpr int layers = tiling::layers;
  constexpr lanes order = tiling::lane_order;
  constexpr index_t pad = 2 * order.positions();
  constexpr int last_direction = Shape.directions() - 1;
  constexpr bool curved = Shape.act != activation::none;

  // A stage that has `late` positions fewer than x at the least has `latest` fewer at the most: forward it waits for the rest of a tile.
  // Leads differ between the halves of a bidirectional stack; both must fit.
  detail::array<index_t, 2 *layers + 1> late = {},
                                        latest =
                                            {};  // inputs of layer l at l; gradients of its outputs at 2 layers - 1 - l
  for (int l = 0; l < layers; l++) {
    index_t const look_ahead = Shape.look_ahead(l, last_direction),
                  had = look_ahead == 0 ? tiling::tile(l > 0 ? l - 1 : 0) : 0;
    late[l + 1] = late[l] + Shape.look_ahead(l, 0);
    latest[l + 1] = latest[l] + look_ahead + tiling::tile(l) - had;
  }
  for (int i = 0; i < layers; i++) {
    int const l = layers - 1 - i;
    late[layers + i + 1] = late[layers + i] + Shape.history(l) - Shape.look_ahead(l, last_direction);
    latest[layers + i + 1] =
        latest[layers + i] + round_up(Shape.history(l) - Shape.look_ahead(l, 0), index_t(order.positions()));
  }

  // Of a bidirectional stack the whole sequence is kept elsewhere.
  index_t const skip_lives = Shape.skip && Shape.directions() == 1 ? latest[2 * layers] - late[layers] : 0;

  auto const plan_of = [&](bool single_tile) {
    conv_stack_backward_plan<layers> plan;
    memory_planner<accumulate_t<T>> memory{Policy.shared_memory_bytes};
    plan.single_tile = single_tile;
    plan.longest = single_tile ? tiling::in_one_step : tiling::longest_tile;
    for (int l = 0; l < layers; l++) plan.tile[l] = single_tile ? tiling::in_one_step : tiling::tile(l);
    plan.step = single_tile ? tiling::beyond(length) : plan.tile[0];
    // `steady`: from the oldest that is still read to the newest; `before` and `after` a sequence: read as zeros.
    auto const ring = [&](index_t steady, index_t before, index_t after) {
      index_t const all = before + length + after;
      return memory.template place_ring<order>((single_tile ? all : min_of(tiling::tile(0) + steady + after, all)) +
                                               2 * pad);
    };
    plan.weight = memory.place(tiling::weight_elements());
    plan.sums = memory.place(size_t(tiling::sum_rows) * size_t(threads) * size_t(Policy.width));
    for (memory_place& spare : plan.spare)
      if (order.front() > 0) spare = memory.place(size_t(min_of(plan.longest, length) + pad));
    for (int l = 0; l < layers; l++) {
      index_t const h = Shape.history(l);
      int const out = 2 * layers - 1 - l;  // the stage of the gradients of the layer's outputs
      plan.input[l] = ring(latest[out] - late[l] + h, state ? h : tiling::reach(l, plan.longest, length, !single_tile),
                           tiling::reach_ahead(l, plan.longest, Shape.look_ahead(l, last_direction)));
      if (curved) plan.derivative[l] = ring(latest[out] - late[l + 1], 0, 0);
      index_t const residual = Shape.ends_residual(l) ? latest[out + Shape.residual_span()] - late[out] : 0,
                    skip = l + 1 == layers ? skip_lives : 0;
      index_t const sum = latest[out + 1] - late[out] + h;
      plan.grad[l] = ring(curved ? sum : max_of(sum, max_of(residual, skip)),
                          tiling::reach(l, plan.longest, state ? plan.longest + 1 : length, !single_tile),
                          tiling::reach_ahead(l, plan.longest, h - Shape.look_ahead(l, 0)));
      if (Shape.ends_residual(l))
        plan.residual[l / max_of(1, Shape.residual_span())] = curved ? ring(residual, 0, 0) : plan.grad[l];
    }
    if (Shape.skip) plan.skip = curved ? ring(skip_lives, 0, 0) : plan.grad[layers - 1];
    if (Shape.dir == direction::bidirectional) {
      size_t const all = size_t(length + pad) * order.channels();
      if (Shape.skip) plan.carry = memory.place(all), plan.total = memory.place(all);
      plan.partial = memory.place(all);
    }
    plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
    index_t const terms = divide_up(plan.tile[0] * order.packs, index_t(order.positions()) * threads);
    index_t const steps = max_of(index_t(1), 1024 / terms);
    if (!single_tile && length > steps * plan.tile[0]) {  // accessed rarely, so they go to the workspace
      plan.steps_of_a_sum = int(steps);
      plan.totals = {memory.global_scratch, 0, true};
      plan.global_scratch +=
          round_up(size_t(tiling::sum_rows) * size_t(order.channels()) * (sizeof(double) / sizeof(accumulate_t<T>)),
                   64 / sizeof(accumulate_t<T>));
    }
    return plan;
  };
  if (length <= tiling::in_one_step) {
    auto const plan = plan_of(true);
    if (plan.global_scratch == 0) return plan;
  }
  return plan_of(false);
}

}  // namespace tcnca
