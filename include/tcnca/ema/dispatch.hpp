// From the arguments of ema to launches of its agents.
#pragma once
#include "../core/workspace.hpp"
#include "../launch/alignment.hpp"
#include "../launch/launch.hpp"
#include "backward.hpp"
#include "forward.hpp"
#include "kernel.hpp"
#include "reduce.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The agents of ema under a tuning, on one kind of executor. Every function takes an argument struct of ema. The
/// functions that answer bytes need extents within tensor_limits; the others need arguments that have passed the
/// checks.
template <element T, ema_shape Shape, class Tuning, class Executor>
struct tuned_ema {
  using traits = executor_traits<Executor>;
  using A = accumulate_t<T>;
  static constexpr ema_policy forward_policy = Tuning::forward(traits::target);
  static constexpr ema_policy backward_policy = Tuning::backward(traits::target);
  static_assert(traits::target.is_cpu() || (forward_policy.width == 1 && backward_policy.width == 1),
                "tcnca::ema: on a GPU a policy's width must be 1");
  using forward_group = typename traits::template group<forward_policy.threads>;
  using backward_group = typename traits::template group<backward_policy.threads>;
  using forward_agent = ema_forward_agent<forward_group, T, Shape, forward_policy>;
  using backward_agent = ema_backward_agent<backward_group, T, Shape, backward_policy>;
  using reduce_agent = ema_reduce_agent<backward_group, T, Shape>;
  using kernel_agent = ema_kernel_agent<forward_group, T, Shape, forward_policy, false>;
  using kernel_backward_agent = ema_kernel_agent<backward_group, T, Shape, backward_policy, true>;

  static workspace_bytes forward_bytes(Executor e, auto const& a) {
    return workspace_for<forward_agent>(e, forward_params(a));
  }
  TCNCA_HIDDEN static status forward(Executor e, auto const& a, workspace scratch) {
    return launch<forward_agent>(e, forward_params(a), scratch);
  }

  /// Workspace: the sums of all sequences, then the memory of the workers.
  static workspace_bytes backward_bytes(Executor e, auto const& a) {
    auto const params = backward_params(a, nullptr);
    return workspace_for<backward_agent>(e, params, sums_bytes(params));
  }
  TCNCA_HIDDEN static status backward(Executor e, auto const& a, workspace scratch) {
    auto const params = backward_params(a, static_cast<double*>(scratch.data));
    status const s = launch<backward_agent>(e, params, workspace_after(scratch, sums_bytes(params)));
    return s.ok() ? reduce(e, a, params) : s;
  }

  static workspace_bytes kernel_bytes(Executor e, auto const& a) {
    return workspace_for<kernel_agent>(e, kernel_params(a));
  }
  TCNCA_HIDDEN static status kernel(Executor e, auto const& a, workspace scratch) {
    return launch<kernel_agent>(e, kernel_params(a), scratch);
  }
  static workspace_bytes kernel_backward_bytes(Executor e, auto const& a) {
    return workspace_for<kernel_backward_agent>(e, kernel_backward_params(a));
  }
  TCNCA_HIDDEN static status kernel_backward(Executor e, auto const& a, workspace scratch) {
    return launch<kernel_backward_agent>(e, kernel_backward_params(a), scratch);
  }

 protected:
  TCNCA_HIDDEN static status reduce(Executor e, auto const& a, ema_backward_params<T> const& p) {
    ema_gradients<A> const results = gradients(a, a.grad_omega);
    if (!results.any()) return {};
    return launch<reduce_agent>(e, {.parameters = p.parameters, .gradients = results, .sums = p.sums});
  }
  static ema_parameters<A> parameters(auto const& a, tensor_view<A const, 1> omega) {
    return {.delta = a.delta, .alpha = a.alpha, .beta = a.beta, .gamma = a.gamma, .omega = omega};
  }
  static ema_gradients<A> gradients(auto const& a, tensor_view<A, 1> omega) {
    return {.delta = a.grad_delta, .alpha = a.grad_alpha, .beta = a.grad_beta, .gamma = a.grad_gamma, .omega = omega};
  }
  template <class Agent, class U>
  static bool vectorizable(sequence_view<U> const& v) {
    return is_vectorizable<Executor>(v, Shape.order, Agent::tiling::vector_elements);
  }

  static ema_forward_params<T> forward_params(auto const& a) {
    return {.parameters = parameters(a, a.omega),
            .x = a.x,
            .state_in = a.state_in,
            .y = a.y,
            .state_out = a.state_out,
            .x_vectorizable = vectorizable<forward_agent>(a.x),
            .y_vectorizable = vectorizable<forward_agent>(a.y)};
  }

  static constexpr index_t sums_per_channel = 3 * Shape.states + 1;
  static ema_backward_params<T> backward_params(auto const& a, double* sums) {
    index_t const rows = saturating_multiply(index_t(Shape.directions()), a.x.extent[1]);
    return {.parameters = parameters(a, a.omega),
            .x = a.x,
            .state_in = a.state_in,
            .grad_y = a.grad_y,
            .grad_state_out = a.grad_state_out,
            .grad_x = a.grad_x,
            .grad_state_in = a.grad_state_in,
            .sums = contiguous(sums, a.x.extent[0], sums_per_channel, rows),
            .x_vectorizable = vectorizable<backward_agent>(a.x),
            .grad_y_vectorizable = vectorizable<backward_agent>(a.grad_y),
            .grad_x_vectorizable = vectorizable<backward_agent>(a.grad_x)};
  }
  static size_t sums_bytes(ema_backward_params<T> const& p) {
    return workspace_part(size_t(p.sums.extent[0] * p.sums.extent[2]), sums_per_channel * sizeof(double));
  }

  static ema_kernel_params<A> kernel_params(auto const& a) {
    return {.parameters = parameters(a, {}), .kappa = a.kappa};
  }
  static ema_kernel_params<A> kernel_backward_params(auto const& a) {
    return {.parameters = parameters(a, {}), .grad_kappa = a.grad_kappa, .gradients = gradients(a, {})};
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
