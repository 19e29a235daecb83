// The operation ema: MEGA's damped exponential moving average, as a recurrence.
#pragma once
#include "core/check.hpp"
#include "ema/backward.hpp"
#include "ema/forward.hpp"
#include "ema/kernel.hpp"
#include "ema/tuning.hpp"
#include "launch/alignment.hpp"
#include "launch/launch.hpp"
#if defined(__CUDACC__)
#include "block/scan.cuh"
#include "launch/cuda.cuh"
#endif

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
/// The scan that an executor's threads use.
template <class Executor>
struct ema_scan {
  using type = group_scan;
};
#if defined(__CUDACC__)
template <>
struct ema_scan<cuda> {
  using type = cub_scan;
};
#endif

/// The agents of an EMA as tuned for an executor.
template <element T, ema_shape Shape, class Tuning, class Executor>
struct tuned_ema {
  using traits = executor_traits<Executor>;
  using scan = typename ema_scan<Executor>::type;
  static constexpr ema_policy forward = Tuning::forward(traits::target);
  static constexpr ema_policy backward = Tuning::backward(traits::target);
  static_assert(traits::target.compute_capability == 0 || (forward.width == 1 && backward.width == 1),
                "tcnca::ema: on a GPU a policy's width must be 1");
  using forward_group = typename traits::template group<forward.threads>;
  using backward_group = typename traits::template group<backward.threads>;
  using forward_agent = ema_forward_agent<forward_group, T, Shape, forward, scan>;
  using backward_agent = ema_backward_agent<backward_group, T, Shape, backward, scan>;
  using reduce_agent = ema_reduce_agent<backward_group, T, Shape>;
  using kernel_agent = ema_kernel_agent<forward_group, T, Shape, forward, false>;
  using kernel_backward_agent = ema_kernel_agent<backward_group, T, Shape, backward, true>;
};
}  // namespace detail

/// MEGA's damped exponential moving average (ema_shape says which), forward and backward, and the kernel of the same map as a convolution.
///
/// Shapes   x, y, grad_y, grad_x: [batch, channels, length]; delta, alpha, beta, gamma: [channels, states], bidirectional [2 * channels,
///          states], the causal ones first; omega: [channels]; kappa: [channels (bidirectional: 2 * channels), length].
///          Sequences have stride 1 along the axis that Shape.order names, any non-negative strides else (0 broadcasts an input).
/// Types    T for x, y, grad_y, grad_x; accumulate_t<T> for all else: a decay near one needs fp32 at least.
/// State    [batch, channels, states]: h after the last position. A sequence cut anywhere and joined by state_out and state_in gives the
///          same as the whole; on the CPU the same bits as a whole that has a state too. state_in and state_out may be the same memory.
///          Causal averages only.
/// Aliasing No output may overlap anything else, but for the state in place.
/// Determinism  Every result is the same from run to run and for any number of threads; gradients of parameters are summed in a fixed
///          order. Up to 1024 positions are summed in accumulate_t<T>; these partial sums are added in fp64, so the error does not grow
///          with the length.
/// Cost     2 states multiply-adds an element forward (3 with a state; 3 and 4 where threads share a sequence), 5 more backward, with
///          grad_state_out 10. x and y pass through memory once. Workspace: what the queries say; forward none but for a bidirectional
///          EMA, backward an element of accumulate_t<T> for each position of the sequences in flight.
/// Accuracy The decay q = 1 - p a is rounded to accumulate_t<T>, and so is each step. A state has a relative error of about epsilon / (1 - q), at
///          any length.
/// Errors   A status; on anything but success nothing was written. Nothing is allocated, nothing thrown.
/// Source   MEGA (arXiv 2209.10655). The scan of affine maps: Blelloch; its derivative by the decay: dual numbers.
template <element T, ema_shape Shape, class Tuning = default_ema_tuning<T, Shape>>
struct ema {
  static_assert(Shape.states >= 1, "tcnca::ema: states must be at least 1");
  static_assert(Shape.dir != direction::symmetric, "tcnca::ema: an EMA is causal or bidirectional");

  using accumulate = accumulate_t<T>;
  static constexpr int states = Shape.states;

  struct forward_args {
    sequence_view<T const> x = {};
    tensor_view<accumulate const, 2> delta = {};
    tensor_view<accumulate const, 2> alpha = {};
    tensor_view<accumulate const, 2> beta = {};
    tensor_view<accumulate const, 2> gamma = {};
    tensor_view<accumulate const, 1> omega = {};    ///< if Shape.skip
    sequence_view<accumulate const> state_in = {};  ///< optional; zero where absent
    sequence_view<T> y = {};
    sequence_view<accumulate> state_out = {};  ///< optional
  };

  /// The inputs are those of the forward pass; gradients are overwritten. All are needed but those of the state.
  struct backward_args {
    sequence_view<T const> x = {};
    tensor_view<accumulate const, 2> delta = {};
    tensor_view<accumulate const, 2> alpha = {};
    tensor_view<accumulate const, 2> beta = {};
    tensor_view<accumulate const, 2> gamma = {};
    tensor_view<accumulate const, 1> omega = {};
    sequence_view<accumulate const> state_in = {};
    sequence_view<T const> grad_y = {};
    sequence_view<accumulate const> grad_state_out = {};  ///< optional; zero where absent
    sequence_view<T> grad_x = {};
    tensor_view<accumulate, 2> grad_delta = {};
    tensor_view<accumulate, 2> grad_alpha = {};
    tensor_view<accumulate, 2> grad_beta = {};
    tensor_view<accumulate, 2> grad_gamma = {};
    tensor_view<accumulate, 1> grad_omega = {};    ///< if Shape.skip
    sequence_view<accumulate> grad_state_in = {};  ///< optional, with state_in
  };

  struct kernel_args {
    tensor_view<accumulate const, 2> delta = {};
    tensor_view<accumulate const, 2> alpha = {};
    tensor_view<accumulate const, 2> beta = {};
    tensor_view<accumulate const, 2> gamma = {};
    tensor_view<accumulate, 2> kappa = {};
  };

  struct kernel_backward_args {
    tensor_view<accumulate const, 2> delta = {};
    tensor_view<accumulate const, 2> alpha = {};
    tensor_view<accumulate const, 2> beta = {};
    tensor_view<accumulate const, 2> gamma = {};
    tensor_view<accumulate const, 2> grad_kappa = {};
    tensor_view<accumulate, 2> grad_delta = {};
    tensor_view<accumulate, 2> grad_alpha = {};
    tensor_view<accumulate, 2> grad_beta = {};
    tensor_view<accumulate, 2> grad_gamma = {};
  };

  /// Bytes of workspace that let forward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t forward_workspace(Executor e, forward_args const& a) noexcept {
    return tensor_limits::hold(a.x) ? forward_bytes(e, a).all : 0;
  }

  /// y (and state_out) from x (and state_in).
  template <class Executor>
  TCNCA_HIDDEN static status forward(Executor e, forward_args const& a, workspace scratch) noexcept {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
    check_inputs(check, a);
    check.output("y", a.y, {batch, channels, length}, contiguous_axis);
    check.only_if(causal, "state_out", a.state_out);
    check.optional_output("state_out", a.state_out, {batch, channels, index_t(states)});
    check.scratch(scratch, check.ok() ? forward_bytes(e, a) : workspace_bytes{}).overlaps({"state_in", "state_out"});
    if (!check.ok()) return check.result();

    auto const p = forward_params<Executor>(a);
    using agent = typename tuned<Executor>::forward_agent;
    return launch<agent>(e, p, scratch);
  }

  /// Bytes of workspace that let backward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t backward_workspace(Executor e, backward_args const& a) noexcept {
    return tensor_limits::hold(a.x) ? backward_bytes(e, a).all : 0;
  }

  /// The gradients of a forward pass with the same inputs. What it needs of that is computed again, not stored.
  template <class Executor>
  TCNCA_HIDDEN static status backward(Executor e, backward_args const& a, workspace scratch) noexcept {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
    check_inputs(check, a);
    check.input("grad_y", a.grad_y, {batch, channels, length}, contiguous_axis);
    check.output("grad_x", a.grad_x, {batch, channels, length}, contiguous_axis);
    check_gradients(check, a, rows(channels));
    if (Shape.skip) check.output("grad_omega", a.grad_omega, {channels});
    else check.only_if(false, "grad_omega", a.grad_omega);
    check.only_if(causal, "grad_state_out", a.grad_state_out);
    check.optional_input("grad_state_out", a.grad_state_out, {batch, channels, index_t(states)});
    check.only_if(a.state_in.given(), "grad_state_in", a.grad_state_in);
    check.optional_output("grad_state_in", a.grad_state_in, {batch, channels, index_t(states)});
    check.scratch(scratch, check.ok() ? backward_bytes(e, a) : workspace_bytes{}).overlaps();
    if (!check.ok()) return check.result();

    auto const p = backward_params<Executor>(a, static_cast<double*>(scratch.data));
    using agent = typename tuned<Executor>::backward_agent;
    workspace const rest{static_cast<char*>(scratch.data) + sums_bytes(a.x), scratch.bytes - sums_bytes(a.x)};
    if (status const s = launch<agent>(e, p, rest); !s.ok()) return s;
    using reduce_agent = typename tuned<Executor>::reduce_agent;
    typename reduce_agent::params_type const sums{p.parameters, gradients(a, a.grad_omega), p.sums};
    return executor_traits<Executor>::template launch<reduce_agent>(
        e, sums, channels > 0 ? reduce_agent::items(sums) : 0, {}, {});
  }

  /// Bytes of workspace that let kernel run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t kernel_workspace(Executor e, kernel_args const& a) noexcept {
    return tensor_limits::hold(a.kappa) ? kernel_bytes<typename tuned<Executor>::kernel_agent>(e, a.kappa).all : 0;
  }

  /// kappa[c, l] = sum of gamma p beta q^l / sqrt(states): y is the convolution of x with it. Exact to rounding at any length.
  template <class Executor>
  TCNCA_HIDDEN static status kernel(Executor e, kernel_args const& a, workspace scratch) noexcept {
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
    check.demand(a.kappa.extent[0] % Shape.directions() == 0, status_code::invalid_extent, "kappa");
    check_parameters(check, a, a.kappa.extent[0]);
    check.output("kappa", a.kappa, {a.kappa.extent[0], a.kappa.extent[1]}, 1);
    check
        .scratch(scratch,
                 check.ok() ? kernel_bytes<typename tuned<Executor>::kernel_agent>(e, a.kappa) : workspace_bytes{})
        .overlaps();
    if (!check.ok()) return check.result();
    ema_kernel_params<accumulate> const p{{a.delta, a.alpha, a.beta, a.gamma, {}}, a.kappa, {}, {}};
    return launch_kernel<typename tuned<Executor>::kernel_agent>(e, p, scratch);
  }

  /// Bytes of workspace that let kernel_backward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t kernel_backward_workspace(Executor e, kernel_backward_args const& a) noexcept {
    return tensor_limits::hold(a.grad_kappa)
               ? kernel_bytes<typename tuned<Executor>::kernel_backward_agent>(e, a.grad_kappa).all
               : 0;
  }

  /// The gradients of delta, alpha, beta and gamma from that of kappa.
  template <class Executor>
  TCNCA_HIDDEN static status kernel_backward(Executor e, kernel_backward_args const& a, workspace scratch) noexcept {
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
    check.demand(a.grad_kappa.extent[0] % Shape.directions() == 0, status_code::invalid_extent, "grad_kappa");
    check_parameters(check, a, a.grad_kappa.extent[0]);
    check.input("grad_kappa", a.grad_kappa, {a.grad_kappa.extent[0], a.grad_kappa.extent[1]}, 1);
    check_gradients(check, a, a.grad_kappa.extent[0]);
    check
        .scratch(scratch, check.ok() ? kernel_bytes<typename tuned<Executor>::kernel_backward_agent>(e, a.grad_kappa)
                                     : workspace_bytes{})
        .overlaps();
    if (!check.ok()) return check.result();
    ema_kernel_params<accumulate> const p{{a.delta, a.alpha, a.beta, a.gamma, {}}, {}, a.grad_kappa, gradients(a, {})};
    return launch_kernel<typename tuned<Executor>::kernel_backward_agent>(e, p, scratch);
  }

 private:
  static constexpr bool causal = Shape.dir == direction::causal;
  static constexpr int contiguous_axis = Shape.order == layout::batch_channels_length ? 2 : 1;
  static constexpr index_t rows(index_t channels) {
    return detail::saturating_multiply(index_t(Shape.directions()), channels);
  }

  template <class Executor>
  using tuned = detail::tuned_ema<T, Shape, Tuning, Executor>;

  template <class Args>
  static void check_parameters(argument_check& check, Args const& a, index_t rows) {
    check.input("delta", a.delta, {rows, index_t(states)});
    check.input("alpha", a.alpha, {rows, index_t(states)});
    check.input("beta", a.beta, {rows, index_t(states)});
    check.input("gamma", a.gamma, {rows, index_t(states)});
  }
  template <class Args>
  static void check_gradients(argument_check& check, Args const& a, index_t rows) {
    check.output("grad_delta", a.grad_delta, {rows, index_t(states)});
    check.output("grad_alpha", a.grad_alpha, {rows, index_t(states)});
    check.output("grad_beta", a.grad_beta, {rows, index_t(states)});
    check.output("grad_gamma", a.grad_gamma, {rows, index_t(states)});
  }
  template <class Args>
  static void check_inputs(argument_check& check, Args const& a) {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    check.input("x", a.x, {batch, channels, length}, contiguous_axis);
    check_parameters(check, a, rows(channels));
    if (Shape.skip) check.input("omega", a.omega, {channels});
    else check.only_if(false, "omega", a.omega);
    check.only_if(causal, "state_in", a.state_in);
    check.optional_input("state_in", a.state_in, {batch, channels, index_t(states)});
  }
  template <class Args>
  static ema_gradients<accumulate> gradients(Args const& a, tensor_view<accumulate, 1> omega) {
    return {a.grad_delta, a.grad_alpha, a.grad_beta, a.grad_gamma, omega};
  }

  template <class Executor>
  static auto forward_params(forward_args const& a) {
    constexpr int vector_elements = tuned<Executor>::forward_agent::tiling::vector_elements;
    ema_forward_params<T> p{{a.delta, a.alpha, a.beta, a.gamma, a.omega}, a.x, a.state_in, a.y, a.state_out};
    p.x_vectorizable = is_vectorizable<Executor>(a.x, Shape.order, vector_elements);
    p.y_vectorizable = is_vectorizable<Executor>(a.y, Shape.order, vector_elements);
    return p;
  }
  template <class Executor>
  static auto backward_params(backward_args const& a, double* sums) {
    constexpr int vector_elements = tuned<Executor>::backward_agent::tiling::vector_elements;
    ema_backward_params<T> p{{a.delta, a.alpha, a.beta, a.gamma, a.omega},
                             a.x,
                             a.state_in,
                             a.grad_y,
                             a.grad_state_out,
                             a.grad_x,
                             a.grad_state_in,
                             contiguous(sums, a.x.extent[0], sum_rows, rows(a.x.extent[1]))};
    p.x_vectorizable = is_vectorizable<Executor>(a.x, Shape.order, vector_elements);
    p.grad_y_vectorizable = is_vectorizable<Executor>(a.grad_y, Shape.order, vector_elements);
    p.grad_x_vectorizable = is_vectorizable<Executor>(a.grad_x, Shape.order, vector_elements);
    return p;
  }
  static constexpr index_t sum_rows = 3 * states + 1;
  static size_t sums_bytes(sequence_view<T const> const& x) {
    return detail::workspace_part(size_t(x.extent[0] * rows(x.extent[1])), sum_rows * sizeof(double));
  }

  template <class Agent, class Params>
  static group_memory memory(Params const& p) {
    return {Agent::shared_memory_elements(p) * sizeof(accumulate),
            Agent::global_scratch_elements(p) * sizeof(accumulate)};
  }
  template <class Executor>
  static workspace_bytes forward_bytes(Executor e, forward_args const& a) {
    using agent = typename tuned<Executor>::forward_agent;
    auto const p = forward_params<Executor>(a);
    return workspace_for<agent>(e, p, memory<agent>(p));
  }
  template <class Executor>
  static workspace_bytes backward_bytes(Executor e, backward_args const& a) {
    using agent = typename tuned<Executor>::backward_agent;
    auto const p = backward_params<Executor>(a, nullptr);
    return workspace_for<agent>(e, p, memory<agent>(p), sums_bytes(a.x));
  }
  template <class Agent, class Executor, class Params>
  TCNCA_HIDDEN static status launch(Executor e, Params const& p, workspace scratch) {
    return executor_traits<Executor>::template launch<Agent>(e, p, Agent::items(p), memory<Agent>(p), scratch);
  }
  template <class Agent, class Executor, class View>
  static workspace_bytes kernel_bytes(Executor e, View const& kappa) {
    using traits = executor_traits<Executor>;
    return workspace_bytes::of(0, traits::bytes_per_worker({Agent::shared_memory_elements * sizeof(accumulate), 0}),
                               traits::workers(e, kappa.extent[0]));
  }
  template <class Agent, class Executor>
  TCNCA_HIDDEN static status launch_kernel(Executor e, ema_kernel_params<accumulate> const& p, workspace scratch) {
    group_memory const memory{Agent::shared_memory_elements * sizeof(accumulate), 0};
    return executor_traits<Executor>::template launch<Agent>(e, p, Agent::items(p), memory, scratch);
  }
};

}  // namespace tcnca
