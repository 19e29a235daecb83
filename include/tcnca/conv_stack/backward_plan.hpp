// Memory layout of the backward kernel: the place and the capacity of each ring buffer.
#pragma once
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Schedule and memory of a backward walk.
template <int Layers>
struct conv_stack_backward_plan {
  conv_stack_schedule<Layers> schedule;
  memory_place weight;
  detail::array<memory_place, 2> staging = {};          // see tile_writer; two rings are written at a time
  detail::array<memory_place, Layers> input = {};       // a layer's inputs, until the weight gradient has used them
  detail::array<memory_place, Layers> derivative = {};  // of the activation, until the gradient of the output arrives
  detail::array<memory_place, Layers> grad = {};        // gradients of a layer's sums
  // Without an activation the gradients of sums and outputs are equal: the next two are then rings of `grad`.
  detail::array<memory_place, Layers> residual =
      {};             // gradients of a residual's output, until added to that of its input
  memory_place skip;  // gradients before the final SiLU, until added to grad_x
  // A bidirectional stack keeps whole sequences: the first direction's output, the gradient of the sum, grad_x of one
  // direction.
  memory_place output, output_grad, partial;
  memory_place sums;    // partial sums of the parameters' gradients, one row per parameter, one pack per thread
  memory_place totals;  // fp64 sums per parameter and channel
  // After this many steps the partial sums are added to the totals, so that a lane sums at most about 1024 terms. 0: no
  // totals, because the sequence is short.
  int steps_per_total = 0;
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// The plan for sequences of `length` positions, with or without a state, and groups of `threads` threads.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto make_conv_stack_backward_plan(index_t length, bool state, int threads) {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  using accumulate = accumulate_t<T>;
  constexpr int layers = tiling::layers, last_direction = Shape.directions() - 1;
  constexpr lanes order = tiling::lane_order;
  constexpr index_t padding = 2 * order.positions();
  constexpr bool has_derivative = Shape.act != activation::none;

  auto const make_plan = [&](bool single_tile) {
    conv_stack_backward_plan<layers> plan;
    plan.schedule = tiling::schedule(single_tile, length);
    conv_stack_lags<Shape> const lags(plan.schedule, order.positions());
    index_t const longest = single_tile ? tiling::single_tile : tiling::longest_tile;
    memory_planner<accumulate> memory{Policy.shared_memory_bytes};
    // A ring whose values are read until `lag` positions of x later; zeros before and after the sequence.
    auto const place_ring = [&](index_t lag, index_t before, index_t after) {
      index_t const all = before + length + after;
      return memory.template place_ring<order>((single_tile ? all : min_of(tiling::tile(0) + lag + after, all)) +
                                               padding);
    };
    plan.weight = memory.place(tiling::weight_elements());
    plan.sums = memory.place(size_t(tiling::parameter_rows) * size_t(threads) * size_t(Policy.width));
    for (memory_place& staging : plan.staging)
      if (order.mirrored()) staging = memory.place(size_t(min_of(longest, length) + padding));
    // A bidirectional stack keeps the gradients before the final SiLU in `output_grad`.
    index_t const skip_lag = Shape.skip && Shape.directions() == 1 ? lags.most[2 * layers] - lags.least[layers] : 0;
    for (int l = 0; l < layers; l++) {
      index_t const history = Shape.history(l);
      int const level = 2 * layers - 1 - l;  // of the gradients of the layer's outputs
      plan.input[l] = place_ring(lags.most[level] - lags.least[l] + history,
                                 state ? history : tiling::zeros_before(l, longest, length, !single_tile),
                                 tiling::zeros_after(l, longest, Shape.look_ahead(l, last_direction)));
      if (has_derivative) plan.derivative[l] = place_ring(lags.most[level] - lags.least[l + 1], 0, 0);
      index_t const residual_lag =
          Shape.ends_residual(l) ? lags.most[level + Shape.residual_span()] - lags.least[level] : 0;
      index_t lag = lags.most[level + 1] - lags.least[level] + history;
      if (!has_derivative) lag = max_of(lag, max_of(residual_lag, l + 1 == layers ? skip_lag : 0));
      plan.grad[l] = place_ring(lag, tiling::zeros_before(l, longest, state ? longest + 1 : length, !single_tile),
                                tiling::zeros_after(l, longest, history - Shape.look_ahead(l, 0)));
      if (Shape.ends_residual(l))
        plan.residual[l / max_of(1, Shape.residual_span())] =
            has_derivative ? place_ring(residual_lag, 0, 0) : plan.grad[l];
    }
    if (Shape.skip) plan.skip = has_derivative ? place_ring(skip_lag, 0, 0) : plan.grad[layers - 1];
    if (Shape.dir == direction::bidirectional) {
      size_t const sequence = size_t(length + padding) * order.channels();
      if (Shape.skip) plan.output = memory.place(sequence), plan.output_grad = memory.place(sequence);
      plan.partial = memory.place(sequence);
    }
    plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
    index_t const terms = divide_up(tiling::tile(0) * order.packs, index_t(order.positions()) * threads);
    index_t const steps = max_of(index_t(1), 1024 / terms);
    if (!single_tile && length > steps * tiling::tile(0)) {  // rarely accessed, so in global scratch
      plan.steps_per_total = int(steps);
      plan.totals = memory_place{.offset = memory.global_scratch, .global_scratch = true};
      plan.global_scratch +=
          round_up(size_t(tiling::parameter_rows) * size_t(order.channels()) * (sizeof(double) / sizeof(accumulate)),
                   64 / sizeof(accumulate));
    }
    return plan;
  };
  if (length <= tiling::single_tile) {
    auto const plan = make_plan(true);
    if (plan.global_scratch == 0) return plan;
  }
  return make_plan(false);
}

}  // namespace tcnca
