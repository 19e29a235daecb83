// Parameters and memory layout of the backward kernel: the place and the capacity of each ring buffer.
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
  // Without an activation the gradients of sums and outputs are equal: the next two are then rings of `grad`. So are
  // those of a residual that is added before the activation.
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

/// Parameters of a backward pass, common to all groups.
template <element T, int Layers, element Weight = T, class Plan = conv_stack_backward_plan<Layers>>
struct conv_stack_backward_params {
  sequence_view<T const> x;
  tensor_view<Weight const, 3> weight;
  tensor_view<Weight const, 2> bias;
  tensor_view<Weight const, 1> omega;
  sequence_view<accumulate_t<T> const> state_in;
  sequence_view<T const> grad_y;
  sequence_view<accumulate_t<T> const> grad_state_out;
  sequence_view<T> grad_x;
  sequence_view<accumulate_t<T>> grad_state_in;
  tensor_view<accumulate_t<T>, 3> sums;  // [batch, conv_stack_shape::parameters(), channels]: one result per sequence
  conv_stack_slots<Layers> slots = {};
  bool x_vectorizable = false, grad_y_vectorizable = false, grad_x_vectorizable = false;
  bool grad_x_streaming = false;  // like y_streaming of the forward pass
  Plan plan = {};
  sequence_table sequences = {};  // as in the forward pass
};

/// The plan for sequences of `length` positions, with or without a state, and groups of `threads` threads.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
constexpr auto place_conv_stack_backward(conv_stack_spaces<Policy> const& spaces, bool single_tile, index_t length,
                                         bool state, int threads) {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  using accumulate = accumulate_t<T>;
  constexpr int layers = tiling::layers, last_direction = Shape.directions() - 1;
  constexpr lanes order = tiling::lane_order;
  constexpr index_t padding = 2 * order.positions();
  constexpr bool has_derivative = Shape.act != activation::none;

  conv_stack_backward_plan<layers> plan;
  plan.schedule = tiling::schedule(single_tile, length);
  conv_stack_lags<Shape> const lags(plan.schedule, order.positions());
  index_t const longest = single_tile ? tiling::single_tile : tiling::longest_tile;
  memory_planner<accumulate> memory;
  // A ring whose values are read until `lag` positions of x later; zeros before and after the sequence.
  auto const place_ring = [&](index_t lag, index_t before, index_t after) {
    index_t const all = before + length + after;
    return memory.template place_ring<order>(
        spaces.rings, (single_tile ? all : min_of(tiling::tile(0) + lag + after, all)) + padding);
  };
  plan.weight = memory.place(spaces.weight, tiling::weight_elements());
  plan.sums = memory.place(spaces.sums, size_t(tiling::parameter_rows) * size_t(threads) * size_t(Policy.width));
  for (memory_place& staging : plan.staging)
    if (order.mirrored()) staging = memory.place(spaces.rings, size_t(min_of(longest, length) + padding));
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
    if (!tiling::has_residual_gradients) lag = max_of(lag, residual_lag);
    if (!has_derivative && l + 1 == layers) lag = max_of(lag, skip_lag);
    plan.grad[l] = place_ring(lag, tiling::zeros_before(l, longest, state ? longest + 1 : length, !single_tile),
                              tiling::zeros_after(l, longest, history - Shape.look_ahead(l, 0)));
    if (Shape.ends_residual(l))
      plan.residual[l / max_of(1, Shape.residual_span())] =
          tiling::has_residual_gradients ? place_ring(residual_lag, 0, 0) : plan.grad[l];
  }
  if (Shape.skip) plan.skip = has_derivative ? place_ring(skip_lag, 0, 0) : plan.grad[layers - 1];
  if (Shape.dir == direction::bidirectional) {
    size_t const sequence = size_t(length + padding) * order.channels();
    if (Shape.skip)
      plan.output = memory.place(spaces.sequences, sequence),
      plan.output_grad = memory.place(spaces.sequences, sequence);
    plan.partial = memory.place(spaces.sequences, sequence);
  }
  index_t const terms = divide_up(tiling::tile(0) * order.packs, index_t(order.positions()) * threads);
  index_t const steps = max_of(index_t(1), 1024 / terms);
  if (!single_tile && length > steps * tiling::tile(0)) {  // rarely accessed, so in global scratch
    plan.steps_per_total = int(steps);
    plan.totals = memory.place(memory_space::global, size_t(tiling::parameter_rows) * size_t(order.channels()) *
                                                         (sizeof(double) / sizeof(accumulate)));
  }
  plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
  return plan;
}

/// The spaces of a backward kernel for groups of so many threads: all rings are in shared memory if those of a long
/// sequence fit there, before the sums, which are accessed less often.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy, int Threads>
inline constexpr conv_stack_spaces<Policy> conv_stack_backward_spaces = [] {
  constexpr auto global = memory_space::global;
  auto const fits = [](conv_stack_spaces<Policy> const& spaces) {
    return fits_shared_memory<accumulate_t<T>, Policy>(
        place_conv_stack_backward<T, Shape, Policy>(spaces, false, long_sequence, true, Threads));
  };
  conv_stack_spaces<Policy> const choices[] = {
      {}, {.sums = global}, {.rings = global}, {.sums = global, .rings = global}};
  for (auto const& spaces : choices)
    if (fits(spaces)) return spaces;
  return conv_stack_spaces<Policy>{.weight = global, .sums = global, .rings = global};
}();

/// The plan of a call, as for place_conv_stack_backward.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy, int Threads>
constexpr auto make_conv_stack_backward_plan(index_t length, bool state) {
  constexpr conv_stack_spaces<Policy> spaces = conv_stack_backward_spaces<T, Shape, Policy, Threads>;
  if (spaces.rings == memory_space::shared && length <= conv_stack_tiling<T, Shape, Policy>::single_tile) {
    auto const plan = place_conv_stack_backward<T, Shape, Policy>(spaces, true, length, state, Threads);
    if (fits_shared_memory<accumulate_t<T>, Policy>(plan)) return plan;
  }
  return place_conv_stack_backward<T, Shape, Policy>(spaces, false, length, state, Threads);
}

}  // namespace tcnca
