// Where the backward pass of a stack keeps its rings, and how long each must be.
#pragma once
#include "conv_stack_plan.hpp"

namespace tcnca {

/// Tiles and rings of a backward pass.
template <int Layers>
struct conv_stack_backward_plan {
  index tile[Layers] = {};
  index longest = 0;
  index step = 0;  // how much of x comes in at a time: a tile, or all of a short sequence
  memory_place weight, sums, spare[2];
  memory_place input[Layers] = {};  // each layer's inputs, until their part in the weight gradient is done
  memory_place slope[Layers] = {};  // of its activation, until its gradient comes
  memory_place grad[Layers] = {};   // gradients of its sums
  memory_place span[Layers] = {};   // gradients of a span's output, until they are added to that of its input
  memory_place skip;                // gradients before the final SiLU, until they are added to grad_x
  memory_place carry, total, partial; // of a bidirectional stack, whole sequences: the first half's output, the gradient of the sum, grad_x
  size near = 0, far = 0;           // elements
};

/// The plan for sequences of `length`; `threads` in a group.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto make_conv_stack_backward_plan(index length, bool state, int threads) {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  constexpr int layers = tiling::layers;
  constexpr lanes order = tiling::lane_order;
  constexpr index pad = 2 * order.positions();
  constexpr int far_half = Shape.halves() - 1;
  conv_stack_backward_plan<layers> plan;
  memory_planner<accumulate_t<T>> memory{Policy.near_bytes};

  // A stage that has `late` positions fewer than x at the least has `latest` fewer at the most: each waits for whole tiles.
  // Leads differ between the halves of a bidirectional stack; both must fit.
  index late[2 * layers + 1] = {}, latest[2 * layers + 1] = {};  // inputs of layer l at l; gradients of its outputs at 2 layers - 1 - l
  for (int l = 0; l < layers; l++) plan.tile[l] = tiling::tile(l);
  plan.longest = tiling::longest_tile;
  for (int l = 0; l < layers; l++) {
    late[l + 1] = late[l] + Shape.lead(l, 0);
    latest[l + 1] = latest[l] + Shape.lead(l, far_half) + plan.tile[l];
  }
  for (int i = 0; i < layers; i++) {
    int const l = layers - 1 - i;
    late[layers + i + 1] = late[layers + i] + Shape.history(l) - Shape.lead(l, far_half);
    latest[layers + i + 1] = latest[layers + i] + Shape.history(l) - Shape.lead(l, 0) + plan.tile[l];
  }
  bool all_whole = length <= tiling::in_one_step;
  auto const ring = [&](index steady, index before) {
    index const whole = before + length + (state ? plan.longest : min(plan.longest, length));  // a short sequence fits in one piece
    all_whole = all_whole && whole <= plan.tile[0] + steady;
    return memory.template place_ring<order>(min(plan.tile[0] + steady, whole) + 2 * pad);
  };

  plan.weight = memory.place(tiling::weight_elements());
  plan.sums = memory.place(size(tiling::sum_rows) * size(threads) * size(Policy.width));
  for (memory_place& spare : plan.spare)
    if (order.front() > 0) spare = memory.place(size(min(max(tiling::longest_tile, tiling::in_one_step), length) + pad));
  for (int l = 0; l < layers; l++) {
    index const h = Shape.history(l), margin = min(h, min(plan.longest, length));
    int const out = 2 * layers - 1 - l;  // the stage of the gradients of the layer's outputs
    plan.input[l] = ring(latest[out] - late[l] + h + plan.longest, state ? h : margin);
    if (Shape.act != activation::none && l + 1 < layers) plan.slope[l] = ring(latest[out] - late[l + 1], 0);
    plan.grad[l] = ring(latest[out + 1] - late[out] + h + plan.longest, state ? min(h, plan.longest) : margin);
    if (Shape.ends_span(l)) plan.span[l / max(1, Shape.span())] = ring(latest[out + Shape.span()] - late[out], 0);
  }
  if (Shape.skip) plan.skip = ring(latest[2 * layers] - late[layers], 0);
  if (Shape.dir == direction::bidirectional) {
    size const whole = size(length + pad) * order.channels();
    if (Shape.skip) plan.carry = memory.place(whole), plan.total = memory.place(whole);
    plan.partial = memory.place(whole);
  }
  plan.step = all_whole ? tiling::beyond(length) : plan.tile[0];
  plan.near = memory.near, plan.far = memory.far;
  return plan;
}

}  // namespace tcnca
