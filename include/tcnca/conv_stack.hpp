// The operation conv_stack: a stack of dilated depthwise convolutions in one pass over memory.
#pragma once
#include "conv_stack/backward.hpp"
#include "conv_stack/reduce.hpp"
#include "conv_stack/step.hpp"
#include "conv_stack/tuning.hpp"
#include "core/check.hpp"
#include "launch/alignment.hpp"
#include "launch/launch.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
constexpr bool valid_dilations(conv_stack_shape const& s) {
  if (!s.listed()) return s.dilation_base >= 1;
  for (int i = 0; i < s.dilations.count(); i++)
    if (s.dilations[i] < 1) return false;
  return true;
}

/// The agents of a stack as tuned for an executor.
template <element T, conv_stack_shape Shape, class Tuning, class Executor>
struct tuned_conv_stack {
  using traits = executor_traits<Executor>;
  static constexpr conv_stack_policy forward = Tuning::forward(traits::target);
  static constexpr conv_stack_policy backward = Tuning::backward(traits::target);
  // Packs along the length start at any position, but a GPU's vector accesses must be aligned.
  static_assert(
      traits::target.compute_capability == 0 || Shape.order == layout::batch_length_channels ||
          (forward.width == 1 && backward.width == 1),
      "tcnca::conv_stack: on a GPU a policy's width must be 1 where neighbouring positions are neighbours in memory");
  using tiling = conv_stack_tiling<T, Shape, forward>;
  using forward_group = typename traits::template group<forward.threads>;
  using backward_group = typename traits::template group<backward.threads>;
  using forward_agent = conv_stack_forward_agent<forward_group, T, Shape, forward>;
  using step_agent = conv_stack_step_agent<forward_group, T, Shape, forward>;
  using backward_agent = conv_stack_backward_agent<backward_group, T, Shape, backward>;
  using reduce_agent = conv_stack_reduce_agent<backward_group, T, Shape>;
};
}  // namespace detail

/// A stack of dilated depthwise convolutions (conv_stack_shape says which), forward and backward, in one pass over memory.
///
/// Shapes   x, y, grad_y, grad_x: [batch, channels, length]; weight: [layers, taps, channels], tap 0 the newest sample, a bidirectional
///          stack 2 * layers, the causal ones first; bias: [the same layers, channels]; omega: [channels].
///          Sequences have stride 1 along the axis that Shape.order names, any non-negative strides else (0 broadcasts an input).
/// Types    T for x, y, weight, bias, omega and their sequences' gradients; accumulate_t<T> for sums, states and the gradients of weights.
///          What passes from layer to layer is not rounded to T.
/// State    [batch, channels, receptive_field - 1]: for each layer in turn a ring of its history = (taps - 1) * dilation newest inputs; the
///          input at absolute position p in slot p mod history. `position` is the absolute position of x's first sample. A sequence cut
///          anywhere and joined by state_out and state_in (position advanced by the length) gives the same bits as the whole. state_in and
///          state_out may be the same memory. Causal stacks only. A few tokens in place cost layers * taps multiply-adds each.
/// Aliasing No output may overlap anything else, but for the state in place.
/// Determinism  Every result is the same from run to run, and y, grad_x also for any number of threads, segments and cuts; gradients of
///          weights are summed in a fixed order. Each lane sums up to 1024 positions in accumulate_t<T>; these partial sums are added in
///          fp64, so the error does not grow with the length.
/// Cost     taps * layers multiply-adds an element forward, up to three times as many backward; x and y pass through memory once.
///          Taps that lie wholly before the sequence are left out. Workspace: what the queries say; independent of batch and channels.
/// Errors   A status; on anything but success nothing was written. Nothing is allocated, nothing thrown.
/// Source   TCNCA (arXiv 2312.05605): the temporal convolution network in place of MEGA's EMA; the choice of levels, activation and
///          residuals is this library's.
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

  using accumulate = accumulate_t<T>;
  static constexpr int layers = Shape.layers();
  static constexpr index_t receptive_field = Shape.receptive_field();
  static constexpr index_t state_length = receptive_field - 1;
  static_assert(receptive_field <= (index_t(1) << 30), "tcnca::conv_stack: the receptive field must not pass 2^30");

  struct forward_args {
    sequence_view<T const> x = {};
    tensor_view<T const, 3> weight = {};
    tensor_view<T const, 2> bias = {};              ///< if Shape.bias
    tensor_view<T const, 1> omega = {};             ///< if Shape.skip
    sequence_view<accumulate const> state_in = {};  ///< optional; zero where absent
    sequence_view<T> y = {};
    sequence_view<accumulate> state_out = {};  ///< optional
    index_t position = 0;
  };

  /// The inputs are those of the forward pass; gradients are overwritten. grad_y is needed, each other gradient optional but for grad_x
  /// and grad_weight (and grad_bias, grad_omega where the shape has them).
  struct backward_args {
    sequence_view<T const> x = {};
    tensor_view<T const, 3> weight = {};
    tensor_view<T const, 2> bias = {};
    tensor_view<T const, 1> omega = {};
    sequence_view<accumulate const> state_in = {};
    sequence_view<T const> grad_y = {};
    sequence_view<accumulate const> grad_state_out = {};  ///< optional; zero where absent
    sequence_view<T> grad_x = {};
    tensor_view<accumulate, 3> grad_weight = {};
    tensor_view<accumulate, 2> grad_bias = {};
    tensor_view<accumulate, 1> grad_omega = {};
    sequence_view<accumulate> grad_state_in = {};  ///< optional
    index_t position = 0;
  };

  /// Bytes of workspace that let forward run on all workers of the executor (see workspace). 0 for a few tokens with a state_out.
  template <class Executor>
  TCNCA_HIDDEN static size_t forward_workspace(Executor e, forward_args const& a) noexcept {
    return tensor_limits::hold(a.x) ? forward_bytes(e, a).all : 0;
  }

  /// y (and state_out) from x (and state_in).
  template <class Executor>
  TCNCA_HIDDEN static status forward(Executor e, forward_args const& a, workspace scratch) noexcept {
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
    check_inputs(check, a);
    check.output("y", a.y, {a.x.extent[0], a.x.extent[1], a.x.extent[2]}, contiguous_axis);
    check_state(check.only_if(causal, "state_out", a.state_out), "state_out", a.state_out, a);
    check.scratch(scratch, check.ok() ? forward_bytes(e, a) : workspace_bytes{}).overlaps({"state_in", "state_out"});
    if (!check.ok() || empty(a)) return check.result();
    if (use_step_kernel(a)) {
      using agent = typename tuned<Executor>::step_agent;
      auto const p = pass_params<Executor>(a);
      return executor_traits<Executor>::template launch<agent>(e, p, agent::items(p), {}, {});
    }
    using agent = typename tuned<Executor>::forward_agent;
    auto const p = forward_params_that_fit(e, a, scratch.bytes);
    return executor_traits<Executor>::template launch<agent>(e, p, agent::items(p), memory(p), scratch);
  }

  /// Bytes of workspace that let backward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t backward_workspace(Executor e, backward_args const& a) noexcept {
    return tensor_limits::hold(a.x) ? backward_bytes(e, a).all : 0;
  }

  /// The gradients of a forward pass with the same inputs. Its intermediate results are computed again, not stored.
  template <class Executor>
  TCNCA_HIDDEN static status backward(Executor e, backward_args const& a, workspace scratch) noexcept {
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
    check_inputs(check, a);
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    check.input("grad_y", a.grad_y, {batch, channels, length}, contiguous_axis);
    check.output("grad_x", a.grad_x, {batch, channels, length}, contiguous_axis);
    check.output("grad_weight", a.grad_weight, {Shape.directions() * layers, Shape.taps, channels});
    if (Shape.bias) check.output("grad_bias", a.grad_bias, {Shape.directions() * layers, channels});
    else check.only_if(false, "grad_bias", a.grad_bias);
    if (Shape.skip) check.output("grad_omega", a.grad_omega, {channels});
    else check.only_if(false, "grad_omega", a.grad_omega);
    check.only_if(causal, "grad_state_out", a.grad_state_out);
    check.optional_input("grad_state_out", a.grad_state_out, {batch, channels, state_length}, contiguous_axis);
    check.only_if(a.state_in.given(), "grad_state_in", a.grad_state_in);
    check_state(check, "grad_state_in", a.grad_state_in, a);
    check.scratch(scratch, check.ok() ? backward_bytes(e, a) : workspace_bytes{}).overlaps();
    if (!check.ok()) return check.result();

    auto const p = backward_params<Executor>(a, static_cast<accumulate*>(scratch.data));
    using agent = typename tuned<Executor>::backward_agent;
    using traits = executor_traits<Executor>;
    workspace const rest{static_cast<char*>(scratch.data) + sums_bytes(a), scratch.bytes - sums_bytes(a)};
    if (status const s = traits::template launch<agent>(e, p, agent::items(p), memory(p), rest); !s.ok()) return s;
    using reduce_agent = typename tuned<Executor>::reduce_agent;
    typename reduce_agent::params_type const sums{p.sums, a.grad_weight, a.grad_bias, a.grad_omega};
    return traits::template launch<reduce_agent>(e, sums, channels > 0 ? reduce_agent::items(sums) : 0, {}, {});
  }

 private:
  static constexpr bool causal = Shape.dir == direction::causal;
  static constexpr int contiguous_axis = Shape.order == layout::batch_channels_length ? 2 : 1;

  template <class Executor>
  using tuned = detail::tuned_conv_stack<T, Shape, Tuning, Executor>;

  static bool empty(forward_args const& a) {
    return a.x.extent[0] == 0 || a.x.extent[1] == 0 || (a.x.extent[2] == 0 && !a.state_out.present());
  }
  static void check_state(argument_check& check, char const* name, auto const& state, auto const& a) {
    check.optional_output(name, state, {a.x.extent[0], a.x.extent[1], state_length}, contiguous_axis);
  }
  static void check_inputs(argument_check& check, auto const& a) {
    index_t const batch = a.x.extent[0], channels = a.x.extent[1], length = a.x.extent[2];
    check.input("x", a.x, {batch, channels, length}, contiguous_axis);
    check.input("weight", a.weight, {Shape.directions() * layers, Shape.taps, channels});
    if (Shape.bias) check.input("bias", a.bias, {Shape.directions() * layers, channels});
    else check.only_if(false, "bias", a.bias);
    if (Shape.skip) check.input("omega", a.omega, {channels});
    else check.only_if(false, "omega", a.omega);
    check.only_if(causal, "state_in", a.state_in);
    check.optional_input("state_in", a.state_in, {batch, channels, state_length}, contiguous_axis);
    check.demand(a.position >= 0 && a.position <= index_t(1) << 62, status_code::invalid_position, "position");
  }

  /// The demand must not depend on pointers, so it covers both cases: uncut sequences (state in place), and sequences cut for all workers.
  template <class Executor>
  static workspace_bytes forward_bytes(Executor e, forward_args const& a) {
    if (use_step_kernel(a)) return {};
    using agent = typename tuned<Executor>::forward_agent;
    auto const whole = forward_params<Executor>(a, 1);
    workspace_bytes need = workspace_for<agent>(e, whole, memory(whole));
    if (agent::items(whole) < most_workers(e)) {
      auto const cut = forward_params<Executor>(a, most_workers(e));
      need.all = max_of(need.all, workspace_for<agent>(e, cut, memory(cut)).all);
    }
    return need;
  }
  template <class Executor>
  static workspace_bytes backward_bytes(Executor e, backward_args const& a) {
    auto const p = backward_params<Executor>(a, nullptr);
    return workspace_for<typename tuned<Executor>::backward_agent>(e, p, memory(p), sums_bytes(a));
  }
  template <class Executor>
  static index_t most_workers(Executor e) {
    return executor_traits<Executor>::workers(e, index_t(1) << 30);
  }

  /// Parameters with sequences cut for as many workers as fit in the workspace. With the state in place nothing is cut, because a segment would
  /// read what another has overwritten.
  template <class Executor>
  static auto forward_params_that_fit(Executor e, forward_args const& a, size_t bytes) {
    using traits = executor_traits<Executor>;
    bool const in_place = a.state_out.present() && a.state_out.data == a.state_in.data;
    for (index_t wanted = in_place ? 1 : most_workers(e);;) {
      auto const p = forward_params<Executor>(a, wanted);
      index_t const used = min_of(wanted, tuned<Executor>::forward_agent::items(p)),
                    fit = workers_that_fit(used, traits::bytes_per_worker(memory(p)), bytes);
      if (wanted == 1 || fit == used) return p;
      wanted = max_of(fit, index_t(1));
    }
  }
  template <class Executor>
  static auto pass_params(forward_args const& a) {
    conv_stack_forward_params<T, layers> p{a.x, a.weight, a.bias, a.omega, a.state_in, a.y, a.state_out, a.position};
    p.all_vectorizable = executor_traits<Executor>::target.compute_capability == 0;
    return p;
  }
  /// Parameters for `wanted` workers: fewer sequences than that are cut into segments.
  template <class Executor>
  static auto forward_params(forward_args const& a, index_t wanted) {
    constexpr conv_stack_policy policy = tuned<Executor>::forward;
    using agent = typename tuned<Executor>::forward_agent;
    auto p = pass_params<Executor>(a);
    index_t const length = a.x.extent[2];
    // Too few sequences for the machine: cut them, as long as a segment is much longer than what it must compute again.
    index_t const have = max_of(index_t(1), agent::items(p));
    p.segment_length = max_of(length, index_t(1));
    if (policy.segment_fields > 0 && have < wanted) {
      index_t const shortest = max_of(policy.segment_fields * receptive_field, index_t(policy.tile));
      p.segment_length = min_of(p.segment_length, round_up(max_of(divide_up(length, divide_up(wanted, have)), shortest),
                                                           index_t(policy.tile)));
      p.segments = divide_up(max_of(length, index_t(1)), p.segment_length);
    }
    index_t walk = p.segment_length + receptive_field +
                   policy.tile;  // a group sees this much of x, and its layers wait for whole tiles
    for (int l = 0; l < layers; l++) walk += tuned<Executor>::tiling::tile(l);
    walk = min_of(walk, length);
    p.plan = make_conv_stack_forward_plan<T, Shape, policy>(walk, p.segment_length, a.state_in.given());
    p.x_vectorizable = is_vectorizable<Executor>(a.x, Shape.order, agent::x_access);
    p.y_vectorizable = is_vectorizable<Executor>(a.y, Shape.order, agent::Lanes.width);
    p.y_streaming = streaming<policy>(a.y);
    return p;
  }

  template <class Executor>
  static auto backward_params(backward_args const& a, accumulate* sums) {
    constexpr conv_stack_policy policy = tuned<Executor>::backward;
    using agent = typename tuned<Executor>::backward_agent;
    conv_stack_backward_params<T, layers> p{a.x,       a.weight,         a.bias,   a.omega,         a.state_in,
                                            a.grad_y,  a.grad_state_out, a.grad_x, a.grad_state_in, {},
                                            a.position};
    p.sums = contiguous(sums, a.x.extent[0], sum_rows, a.x.extent[1]);
    p.plan =
        make_conv_stack_backward_plan<T, Shape, policy>(a.x.extent[2], a.state_in.given(), agent::group_type::size());
    p.x_vectorizable = is_vectorizable<Executor>(a.x, Shape.order, agent::x_access);
    p.grad_y_vectorizable = is_vectorizable<Executor>(a.grad_y, Shape.order, agent::Lanes.width);
    p.grad_x_vectorizable = is_vectorizable<Executor>(a.grad_x, Shape.order, agent::Lanes.width);
    p.grad_x_streaming = streaming<policy>(a.grad_x);
    return p;
  }
  /// Whether a result goes past the caches.
  template <conv_stack_policy Policy>
  static bool streaming(sequence_view<T> const& v) {
    auto const whole = [](size_t bytes) { return bytes % 64 == 0; };
    return Policy.streaming_bytes > 0 && size_t(v.count()) * sizeof(T) >= Policy.streaming_bytes &&
           whole(reinterpret_cast<std::uintptr_t>(v.data)) && whole(size_t(v.stride[0]) * sizeof(T)) &&
           whole(size_t(v.stride[1]) * sizeof(T));
  }
  static constexpr int sum_rows =
      Shape.directions() * layers * (Shape.taps + (Shape.bias ? 1 : 0)) + (Shape.skip ? 1 : 0);

  static size_t sums_bytes(backward_args const& a) {
    return detail::workspace_part(size_t(a.x.extent[0] * a.x.extent[1]), sum_rows * sizeof(accumulate));
  }
  static group_memory memory(auto const& p) {
    return {p.plan.shared_memory * sizeof(accumulate), p.plan.global_scratch * sizeof(accumulate)};
  }
  /// A few tokens at the state's cost would be dear: read what they need from it instead.
  static bool use_step_kernel(forward_args const& a) {
    return causal && a.state_out.given() && a.x.extent[2] < divide_up(receptive_field, index_t(layers) * Shape.taps);
  }
};

}  // namespace tcnca
