// The operation ema: MEGA's damped exponential moving average, computed as a recurrence.
#pragma once
#include "core/check.hpp"
#include "core/text.hpp"
#include "ema/arguments.hpp"
#include "ema/packed.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// MEGA's damped exponential moving average (EMA), defined at ema_shape: forward, backward, and the convolution kernel
/// of the same map.
///
/// Shapes       x, y, grad_y, grad_x: [batch, channels, length]. delta, alpha, beta, gamma: [rows, states] with rows =
///              channels; bidirectional: rows = 2 * channels, those of the causal EMA first. omega: [channels]. kappa:
///              [rows, length]. A gradient has the shape of what it belongs to. Extents of 0 are allowed.
/// Strides      Sequences have stride 1 along the axis that Shape.order names, kappa along the length; all other
///              strides may be any non-negative number. Stride 0 broadcasts an input.
/// Types        T for x, y, grad_y, grad_x; accumulate_t<T> for everything else, because a decay close to 1 needs at
///              least fp32.
/// State        [batch, channels, states]: h after the last position, causal EMAs only. A sequence may be cut anywhere:
///              passing state_out of one part as state_in of the next gives the same result as one call; on the CPU the
///              same bits as one call with a state.
/// Packed       With `offsets` [sequences + 1], the cu_seqlens of other libraries, x has a batch extent of 1, and
///              sequence s is its positions offsets[s] to offsets[s + 1] - 1. Offsets do not descend; a sequence may be
///              empty. What lies before the first and after the last one is neither read nor written. No sequence is
///              longer than `max_length`; it bounds the workspace and the grid, and 0 stands for the length of x.
///              States and their gradients have a row for each sequence.
/// Slots        With `slots` [sequences, or batch], sequence s has row slots[s] of the states and of their gradients,
///              whose batch extent is then any number of rows. Negative: it has no state, which is zero and is not
///              written. No two sequences of a call may write the same row.
/// Tables       offsets and slots are in the executor's memory. On the CPU a call checks their values, but not that
///              slots differ. On a GPU the host cannot read them: they must be right. All results but the gradients of
///              parameters have the bits of one call for each sequence; those gradients are added in the order of the
///              sequences.
/// Aliasing     state_out may be the same view as state_in. No other output may overlap another argument.
/// Determinism  Results have the same bits in every run and for any number of threads. Gradients of parameters are
///              summed in a fixed order: up to 1024 positions in accumulate_t<T>, then in fp64, so the error does not
///              grow with the length.
/// Accuracy     The decay q = 1 - p a is rounded to accumulate_t<T>, and so is every step. The relative error of a
///              state is about epsilon / (1 - q) at any length.
/// Complexity   O(states) per element. Multiply-adds per element and state: forward 2, with a state 3; where threads
///              share a sequence 3 and 4; backward 5 more, with grad_state_out 10. x and y are accessed once.
///              Workspace: forward, only for a bidirectional EMA; backward, up to two elements of accumulate_t<T> per
///              position of the sequences in flight, and 3 states + 1 fp64 sums for each sequence and row. On the CPU
///              also a few tens of KB per thread.
/// Errors       Returned as a status. Unless it is success, nothing was written; exception: launch_failed
///              of backward, which may come from the second of two launches. No entry point allocates, throws or
///              synchronizes; on a GPU the call returns when its kernels are enqueued.
/// Source       MEGA (arXiv 2209.10655). Scan of affine maps: Blelloch (1990). Derivative with respect to the decay:
///              dual numbers.
template <element T, ema_shape Shape, class Tuning = default_ema_tuning<T, Shape>>
struct ema {
  static_assert(Shape.states >= 1, "tcnca::ema: states must be at least 1");
  static_assert(Shape.dir != direction::symmetric, "tcnca::ema: an EMA is causal or bidirectional");

  using accumulate = accumulate_t<T>;
  static constexpr int states = Shape.states;

  using forward_args = ema_forward_args<T>;
  using backward_args = ema_backward_args<T>;
  using kernel_args = ema_kernel_args<T>;
  using kernel_backward_args = ema_kernel_backward_args<T>;

  /// Bytes of workspace with which forward runs on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t forward_workspace(Executor e, forward_args const& a) noexcept {
    return has_extents(a) ? forward_bytes(e, a).all : 0;
  }
  /// Computes y and, if present, state_out.
  template <class Executor>
  TCNCA_HIDDEN static status forward(Executor e, forward_args const& a, workspace scratch) noexcept {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    argument_check check = check_executor(e);
    check_inputs(check, a);
    check.output("y", a.y, {batch, channels, length}, contiguous_axis);
    check.only_if(causal, "state_out", a.state_out);
    check.optional_output("state_out", a.state_out, {sequences(a).state_rows(a.state_out), channels, index_t(states)});
    check_sequences<Executor>(check, a, a.state_out);
    check.scratch(scratch, check.ok() ? forward_bytes(e, a) : workspace_bytes{});
    check.overlaps({"state_in", "state_out"});
    if (!check.ok()) return check.result();
    return sequences(a).given() ? tuned_packed<Executor>::forward(e, a, scratch)
                                : tuned<Executor>::forward(e, a, scratch);
  }

  /// Bytes of workspace with which backward runs on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t backward_workspace(Executor e, backward_args const& a) noexcept {
    return has_extents(a) ? backward_bytes(e, a).all : 0;
  }
  /// Computes the gradients of forward with the same inputs, those that are present. Nothing needs to be stored by the
  /// forward pass.
  template <class Executor>
  TCNCA_HIDDEN static status backward(Executor e, backward_args const& a, workspace scratch) noexcept {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    argument_check check = check_executor(e);
    check_inputs(check, a);
    check.input("grad_y", a.grad_y, {batch, channels, length}, contiguous_axis);
    check.optional_output("grad_x", a.grad_x, {batch, channels, length}, contiguous_axis);
    check_gradients(check, a, rows(channels));
    check.only_if(Shape.skip, "grad_omega", a.grad_omega);
    check.optional_output("grad_omega", a.grad_omega, {channels});
    check.only_if(causal, "grad_state_out", a.grad_state_out);
    check.optional_input("grad_state_out", a.grad_state_out,
                         {sequences(a).state_rows(a.grad_state_out), channels, index_t(states)});
    check.only_if(a.state_in.given(), "grad_state_in", a.grad_state_in);
    check.optional_output("grad_state_in", a.grad_state_in,
                          {sequences(a).state_rows(a.grad_state_in), channels, index_t(states)});
    check_sequences<Executor>(check, a, a.grad_state_out, a.grad_state_in);
    check.scratch(scratch, check.ok() ? backward_bytes(e, a) : workspace_bytes{}).overlaps();
    bool const any = a.grad_x.given() || a.grad_state_in.given() || a.grad_omega.given() || has_gradients(a);
    if (!check.ok() || !any) return check.result();
    return sequences(a).given() ? tuned_packed<Executor>::backward(e, a, scratch)
                                : tuned<Executor>::backward(e, a, scratch);
  }

  /// Bytes of workspace with which kernel runs on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t kernel_workspace(Executor e, kernel_args const& a) noexcept {
    return tensor_limits::hold(a.kappa) ? tuned<Executor>::kernel_bytes(e, a).all : 0;
  }
  /// Computes kappa[row, l] = sum of gamma p beta q^l / sqrt(states) over the states. Convolved with it, x gives y
  /// before the skip; a bidirectional EMA adds a causal and an anti-causal convolution. The error is that of a few
  /// roundings at any length.
  template <class Executor>
  TCNCA_HIDDEN static status kernel(Executor e, kernel_args const& a, workspace scratch) noexcept {
    argument_check check = check_executor(e);
    check.demand(a.kappa.extent[0] % Shape.directions() == 0, status_code::invalid_extent, "kappa");
    check_parameters(check, a, a.kappa.extent[0]);
    check.output("kappa", a.kappa, {a.kappa.extent[0], a.kappa.extent[1]}, 1);
    check.scratch(scratch, check.ok() ? tuned<Executor>::kernel_bytes(e, a) : workspace_bytes{}).overlaps();
    return check.ok() ? tuned<Executor>::kernel(e, a, scratch) : check.result();
  }

  /// Bytes of workspace with which kernel_backward runs on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t kernel_backward_workspace(Executor e, kernel_backward_args const& a) noexcept {
    return tensor_limits::hold(a.grad_kappa) ? tuned<Executor>::kernel_backward_bytes(e, a).all : 0;
  }
  /// Computes the gradients of delta, alpha, beta and gamma from that of kappa, as far as they are present.
  template <class Executor>
  TCNCA_HIDDEN static status kernel_backward(Executor e, kernel_backward_args const& a, workspace scratch) noexcept {
    argument_check check = check_executor(e);
    check.demand(a.grad_kappa.extent[0] % Shape.directions() == 0, status_code::invalid_extent, "grad_kappa");
    check_parameters(check, a, a.grad_kappa.extent[0]);
    check.input("grad_kappa", a.grad_kappa, {a.grad_kappa.extent[0], a.grad_kappa.extent[1]}, 1);
    check_gradients(check, a, a.grad_kappa.extent[0]);
    check.scratch(scratch, check.ok() ? tuned<Executor>::kernel_backward_bytes(e, a) : workspace_bytes{}).overlaps();
    return check.ok() && has_gradients(a) ? tuned<Executor>::kernel_backward(e, a, scratch) : check.result();
  }

 private:
  static constexpr bool causal = Shape.dir == direction::causal;
  static constexpr int contiguous_axis = Shape.order == layout::batch_channels_length ? 2 : 1;
  /// Rows of the parameters.
  static constexpr index_t rows(index_t channels) {
    return detail::saturating_multiply(index_t(Shape.directions()), channels);
  }

  template <class Executor>
  using tuned = detail::tuned_ema<T, Shape, Tuning, Executor>;

  template <class Executor>
  using tuned_packed = detail::tuned_packed_ema<T, Shape, Tuning, Executor>;

  static sequence_table sequences(auto const& a) { return sequence_table::of(a, a.x.extent[0], a.x.extent[2]); }
  template <class Executor>
  static workspace_bytes forward_bytes(Executor e, forward_args const& a) {
    return sequences(a).given() ? tuned_packed<Executor>::forward_bytes(e, a) : tuned<Executor>::forward_bytes(e, a);
  }
  template <class Executor>
  static workspace_bytes backward_bytes(Executor e, backward_args const& a) {
    return sequences(a).given() ? tuned_packed<Executor>::backward_bytes(e, a) : tuned<Executor>::backward_bytes(e, a);
  }
  template <class Executor>
  static void check_sequences(argument_check& check, auto const& a, auto const&... others) {
    constexpr bool readable = executor_traits<Executor>::target.is_cpu();
    check.sequences(sequences(a), "x", a.x, a.max_length, readable, a.state_in, others...);
  }
  static bool has_extents(auto const& a) { return tensor_limits::hold(a.x) && tensor_limits::hold(sequences(a), a.x); }
  static void check_parameters(argument_check& check, auto const& a, index_t rows) {
    check.input("delta", a.delta, {rows, index_t(states)});
    check.input("alpha", a.alpha, {rows, index_t(states)});
    check.input("beta", a.beta, {rows, index_t(states)});
    check.input("gamma", a.gamma, {rows, index_t(states)});
  }
  static void check_gradients(argument_check& check, auto const& a, index_t rows) {
    check.optional_output("grad_delta", a.grad_delta, {rows, index_t(states)});
    check.optional_output("grad_alpha", a.grad_alpha, {rows, index_t(states)});
    check.optional_output("grad_beta", a.grad_beta, {rows, index_t(states)});
    check.optional_output("grad_gamma", a.grad_gamma, {rows, index_t(states)});
  }
  /// Whether a call asks for gradients of delta, alpha, beta or gamma.
  static bool has_gradients(auto const& a) {
    return a.grad_delta.given() || a.grad_alpha.given() || a.grad_beta.given() || a.grad_gamma.given();
  }
  static void check_inputs(argument_check& check, auto const& a) {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    check.input("x", a.x, {batch, channels, length}, contiguous_axis);
    check_parameters(check, a, rows(channels));
    if (Shape.skip) check.input("omega", a.omega, {channels});
    else check.only_if(false, "omega", a.omega);
    check.only_if(causal, "state_in", a.state_in);
    check.optional_input("state_in", a.state_in, {sequences(a).state_rows(a.state_in), channels, index_t(states)});
  }
};

}  // namespace tcnca
