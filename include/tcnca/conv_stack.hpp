// The operation conv_stack: a stack of dilated depthwise convolutions in one pass over memory.
#pragma once
#include "conv_stack/arguments.hpp"
#include "conv_stack/dispatch.hpp"
#include "conv_stack/packed.hpp"
#include "core/check.hpp"
#include "core/text.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
constexpr bool valid_dilations(conv_stack_shape const& s) {
  if (!s.listed()) return s.dilation_base >= 1;
  for (int i = 0; i < s.dilations.count(); i++)
    if (s.dilations[i] < 1) return false;
  return true;
}
}  // namespace detail

/// A stack of dilated depthwise convolutions (see conv_stack_shape), forward and backward, in one pass over memory.
///
/// Shapes   x, y, grad_y, grad_x: [batch, channels, length]; weight: [layers, taps, channels], tap 0 the newest sample,
///          and 2 * layers for a bidirectional stack, the causal ones first; bias: [the same layers, channels]; omega:
///          [channels]. Sequences have stride 1 along the axis that Shape.order names and any non-negative strides
///          along the others (0 broadcasts an input).
/// Types    T for x, y, grad_y and grad_x; T or accumulate_t<T> for weight, bias and omega, see Shape.weights;
///          accumulate_t<T> for sums, states and the gradients of parameters. What is passed between layers is not
///          rounded to T on the CPU and in stacks of few taps. On a GPU most 16-bit stacks run on tensor cores and
///          round it, and the weights and biases, as a framework does between two operations (see
///          forward_rounds_between_layers). A tuning with stack_kernels::fp32_between_layers avoids it.
/// State    [batch, channels, receptive_field - 1]. For each layer in turn: a ring of its newest history = (taps - 1) *
///          dilation inputs; the input at absolute position p is in slot p mod history. `position` is the absolute
///          position of x's first sample. A sequence processed in parts, with state_out passed on as state_in and
///          position advanced by the length, gives the same bits as the whole sequence (where layers are rounded: the
///          same values up to rounding, because short calls do not round). state_in and state_out may be
///          the same memory. Causal stacks only. A short call in place costs layers * taps multiply-adds per sample and
///          channel.
/// Packed   With `offsets` [sequences + 1], the cu_seqlens of other libraries, x has a batch extent of 1, and sequence
///          s is its positions offsets[s] to offsets[s + 1] - 1. Offsets do not descend; a sequence may be empty. What
///          lies before the first and after the last one is neither read nor written. No sequence is longer than
///          `max_length`; it bounds the workspace and the grid, and 0 stands for the length of x. States and their
///          gradients have a row for each sequence.
/// Slots    With `slots` [sequences, or batch], sequence s has row slots[s] of the states and of their gradients, whose
///          batch extent is then any number of rows. Negative: it has no state, which is zero and is not written. No
///          two sequences of a call may write the same row. `positions` [the same] replace `position`.
/// Tables   offsets, slots and positions are in the executor's memory, so that a captured graph can be replayed with
///          other values. On the CPU a call checks their values, but not that slots differ. On a GPU the host cannot
///          read them: they must be right. With a table a GPU runs the step kernel and the generic kernels, which do
///          not round; the CPU runs the same kernels as without. y, states and grad_x have the bits of a call for each
///          sequence (on a GPU: where that call does not round); gradients of parameters are added in the order of the
///          sequences. Calls of one position with a state_out, such as one token for each slot of a pool, run the step
///          kernel alone.
/// Aliasing No output may overlap any other argument, except for the state in place.
/// Not finite  An infinity or a NaN in x reaches the outputs that depend on it. On tensor cores it may also reach
///          others at a distance of up to 8 dilations of each layer, before and after, because a band matrix's zeros
///          are multiplied with it. Where ReLU is 0, an infinite gradient becomes 0 or NaN, depending on the kernel.
/// Determinism  Every result is the same from run to run. Where layers are not rounded, y and grad_x are also the same
///          for any number of threads and segments, y for any parts, too. Gradients of parameters are summed in a fixed
///          order: each lane sums up to 1024 positions in accumulate_t<T>, and these partial sums are added in fp64, so
///          the error does not grow with the length.
/// Cost     taps * layers multiply-adds per element forward, up to three times as many backward; x and y pass through
///          memory once. Taps that lie entirely outside the sequence are skipped. The workspace (see the queries) per
///          worker does not depend on batch and channels; backward adds the sums of each sequence, one element of
///          accumulate_t<T> per parameter and channel, which short sequences on the CPU share.
/// Errors   Returned as a status. Unless it is success, nothing was written; exception: launch_failed, which may come
///          from a later one of several launches. No allocation, no exceptions.
/// Source   TCNCA (arXiv 2312.05605): a temporal convolution network instead of MEGA's EMA; the choice of levels,
///          activation and residuals is this library's.
template <element T, conv_stack_shape Shape, class Tuning = default_conv_stack_tuning<T, Shape>>
struct conv_stack {
  static_assert(Shape.taps >= 1, "tcnca::conv_stack: taps must be at least 1");
  static_assert(Shape.levels() >= 1, "tcnca::conv_stack: depth must be at least 1");
  static_assert(Shape.convolutions >= 1, "tcnca::conv_stack: convolutions must be at least 1");
  static_assert(Shape.blocks >= 1, "tcnca::conv_stack: blocks must be at least 1");
  static_assert(!Shape.listed() || Shape.levels() == Shape.dilations.count(),
                "tcnca::conv_stack: depth must be the number of dilations listed, or be left out");
  static_assert(detail::valid_dilations(Shape), "tcnca::conv_stack: dilations must be at least 1");
  static_assert(Shape.dir != direction::symmetric || Shape.taps % 2 == 1,
                "tcnca::conv_stack: a symmetric stack needs an odd number of taps");
  static_assert(!Shape.post_activation || Shape.residuals != residual::none,
                "tcnca::conv_stack: post_activation needs residuals");

  using accumulate = accumulate_t<T>;
  static constexpr int layers = Shape.layers();
  static constexpr int weight_sets = Shape.weight_sets();  ///< the first extent of weight and bias
  static constexpr index_t receptive_field = Shape.receptive_field();
  static constexpr index_t state_length = receptive_field - 1;
  static_assert(receptive_field <= (index_t(1) << 30), "tcnca::conv_stack: the receptive field must not pass 2^30");

  /// Whether an executor's kernels round what is passed between layers to T: activations forward, activations and
  /// gradients backward.
  template <class Executor>
  static constexpr bool forward_rounds_between_layers =
      detail::tuned_conv_stack<T, Shape, Tuning, Executor>::forward_rounds();
  template <class Executor>
  static constexpr bool backward_rounds_between_layers =
      detail::tuned_conv_stack<T, Shape, Tuning, Executor>::backward_rounds();

  using forward_args = conv_stack_forward_args<T, parameter_t<T, Shape.weights>>;
  using backward_args = conv_stack_backward_args<T, parameter_t<T, Shape.weights>>;

  /// Bytes of workspace with which forward runs on all workers of the executor (see workspace). 0 for short calls with
  /// a state_out, unless they have slots and more than one position.
  template <class Executor>
  TCNCA_HIDDEN static size_t forward_workspace(Executor e, forward_args const& a) noexcept {
    if (!has_extents(a)) return 0;
    return sequences(a).given() ? packed_forward_call<Executor>(e, a).demand().all
                                : forward_call<Executor>(e, a).demand().all;
  }

  /// Computes y and state_out from x and state_in.
  template <class Executor>
  TCNCA_HIDDEN static status forward(Executor e, forward_args const& a, workspace scratch) noexcept {
    argument_check check = check_executor(e);
    check_inputs(check, a);
    check.output("y", a.y, {a.x.extent[0], a.x.extent[1], a.x.extent[2]}, contiguous_axis);
    check_state(check.only_if(causal, "state_out", a.state_out), "state_out", a.state_out, a);
    check_sequences<Executor>(check, a, a.state_out);
    if (!check.ok()) return check.result();
    auto const run = [&](auto const& call) {
      check.scratch(scratch, call.demand()).overlaps({"state_in", "state_out"});
      return check.ok() && !empty(a) ? call.launch(scratch) : check.result();
    };
    return sequences(a).given() ? run(packed_forward_call<Executor>(e, a)) : run(forward_call<Executor>(e, a));
  }

  /// Bytes of workspace with which backward runs on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t backward_workspace(Executor e, backward_args const& a) noexcept {
    if (!has_extents(a)) return 0;
    return sequences(a).given() ? packed_backward_call<Executor>(e, a).demand().all
                                : backward_call<Executor>(e, a).demand().all;
  }

  /// Computes the gradients of a forward pass with the same inputs, as far as they are present: each of them is
  /// optional, and without any the call does nothing. Intermediate results are recomputed, not stored. On a GPU a
  /// stack that does not fit in one kernel keeps activations in grad_x; without grad_x the workspace has room for them.
  template <class Executor>
  TCNCA_HIDDEN static status backward(Executor e, backward_args const& a, workspace scratch) noexcept {
    argument_check check = check_executor(e);
    check_inputs(check, a);
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    check.input("grad_y", a.grad_y, {batch, channels, length}, contiguous_axis);
    check.optional_output("grad_x", a.grad_x, {batch, channels, length}, contiguous_axis);
    check.optional_output("grad_weight", a.grad_weight, {weight_sets, Shape.taps, channels});
    check.only_if(Shape.bias, "grad_bias", a.grad_bias);
    check.optional_output("grad_bias", a.grad_bias, {weight_sets, channels});
    check.only_if(Shape.skip, "grad_omega", a.grad_omega);
    check.optional_output("grad_omega", a.grad_omega, {channels});
    check.only_if(causal, "grad_state_out", a.grad_state_out);
    check.optional_input("grad_state_out", a.grad_state_out,
                         {sequences(a).state_rows(a.grad_state_out), channels, state_length}, contiguous_axis);
    check.only_if(a.state_in.given(), "grad_state_in", a.grad_state_in);
    check_state(check, "grad_state_in", a.grad_state_in, a);
    check_sequences<Executor>(check, a, a.grad_state_out, a.grad_state_in);
    if (!check.ok()) return check.result();
    bool const any = a.grad_x.given() || a.grad_state_in.given() || has_parameter_gradients(a);
    auto const run = [&](auto call) {
      check.scratch(scratch, call.demand()).overlaps();
      return check.ok() && any ? call.launch(scratch) : check.result();
    };
    return sequences(a).given() ? run(packed_backward_call<Executor>(e, a)) : run(backward_call<Executor>(e, a));
  }

 private:
  static constexpr bool causal = Shape.dir == direction::causal;
  static constexpr int contiguous_axis = Shape.order == layout::batch_channels_length ? 2 : 1;

  template <class Executor>
  using forward_call = detail::conv_stack_forward_call<T, Shape, Tuning, Executor, forward_args>;
  template <class Executor>
  using backward_call = detail::conv_stack_backward_call<T, Shape, Tuning, Executor, backward_args>;

  template <class Executor>
  using packed_forward_call = detail::conv_stack_packed_forward_call<T, Shape, forward_call<Executor>, forward_args>;
  template <class Executor>
  using packed_backward_call = detail::conv_stack_packed_backward_call<
      T, Shape, detail::conv_stack_generic_backward<T, Shape, Tuning, Executor, backward_args>, backward_args>;

  static sequence_table sequences(auto const& a) { return sequence_table::of(a, a.x.extent[0], a.x.extent[2]); }
  static bool empty(forward_args const& a) {
    return a.x.extent[0] == 0 || a.x.extent[1] == 0 || (a.x.extent[2] == 0 && !a.state_out.present());
  }
  static void check_state(argument_check& check, char const* name, auto const& state, auto const& a) {
    check.optional_output(name, state, {sequences(a).state_rows(state), a.x.extent[1], state_length}, contiguous_axis);
  }
  template <class Executor>
  static void check_sequences(argument_check& check, auto const& a, auto const&... others) {
    constexpr bool readable = executor_traits<Executor>::target.is_cpu();
    check.sequences(sequences(a), "x", a.x, a.max_length, readable, a.state_in, others...);
  }
  static bool has_extents(auto const& a) { return tensor_limits::hold(a.x) && tensor_limits::hold(sequences(a), a.x); }
  static void check_inputs(argument_check& check, auto const& a) {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    check.input("x", a.x, {batch, channels, length}, contiguous_axis);
    check.input("weight", a.weight, {weight_sets, Shape.taps, channels});
    if (Shape.bias) check.input("bias", a.bias, {weight_sets, channels});
    else check.only_if(false, "bias", a.bias);
    if (Shape.skip) check.input("omega", a.omega, {channels});
    else check.only_if(false, "omega", a.omega);
    check.only_if(causal, "state_in", a.state_in);
    check.optional_input("state_in", a.state_in, {sequences(a).state_rows(a.state_in), channels, state_length},
                         contiguous_axis);
    check.demand(a.position >= 0 && a.position <= index_t(1) << 62, status_code::invalid_position, "position");
  }
};

}  // namespace tcnca
