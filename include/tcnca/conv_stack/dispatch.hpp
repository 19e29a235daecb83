// From the arguments of a call to the kernels that run: agents, parameters, memory, segments.
#pragma once
#include <type_traits>

#include "../launch/alignment.hpp"
#include "../launch/launch.hpp"
#include "backward.hpp"
#include "forward.hpp"
#include "pass_calls.hpp"
#include "step.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The agents of a stack as tuned for an executor.
template <element T, conv_stack_shape Shape, class Tuning, class Executor>
struct tuned_conv_stack {
  using traits = executor_traits<Executor>;
  static constexpr conv_stack_policy forward = Tuning::forward(traits::target);
  static constexpr conv_stack_policy backward = Tuning::backward(traits::target);
  // On the CPU packs may start at any position; vector accesses of a GPU must be aligned.
  static_assert(
      traits::target.is_cpu() || Shape.order == layout::batch_length_channels ||
          (forward.width == 1 && backward.width == 1),
      "tcnca::conv_stack: on a GPU a policy's width must be 1 where neighbouring positions are neighbours in memory");
  using tiling = conv_stack_tiling<T, Shape, forward>;
  using forward_group = typename traits::template group<forward.threads>;
  using backward_group = typename traits::template group<backward.threads>;
  using forward_agent = conv_stack_forward_agent<forward_group, T, Shape, forward>;
  using step_group = typename traits::template group<min_of(forward.threads, 128)>;  // many small blocks
  using step_agent = conv_stack_step_agent<step_group, T, Shape, forward>;
  using backward_agent = conv_stack_backward_agent<backward_group, T, Shape, backward>;
  using reduce_agent = conv_stack_reduce_agent<backward_group, T, Shape>;

  /// Whether the stack can run as passes, see passes.hpp.
  template <stack_kernels Allowed, bool Forward>
  static constexpr bool has_passes() {
    if constexpr (traits::target.is_cpu()) {
      return false;
    } else if constexpr (Forward) {
      return forward_passes<T, Shape, Allowed>().count > 0;
    } else {
      return backward_passes<T, Shape, Allowed, executor_traits<Executor>::target>().exists;
    }
  }

  /// Whether passes, where they run, round what is passed between layers to T.
  static constexpr bool forward_rounds() {
    if constexpr (has_passes<forward.kernels, true>()) {
      return conv_stack_forward_passes<T, Shape, forward.kernels, Executor, int>::round_between_layers;
    } else {
      return false;
    }
  }
  static constexpr bool backward_rounds() {
    if constexpr (has_passes<backward.kernels, false>()) {
      return conv_stack_backward_passes<T, Shape, backward.kernels, Executor, int>::round_between_layers;
    } else {
      return false;
    }
  }

  /// Groups that the executor can run at the same time.
  static index_t max_workers(Executor e) { return traits::workers(e, index_t(1) << 30); }

  /// Whether a result is written with non-temporal stores: it is large, and its rows start at cache lines.
  template <conv_stack_policy Policy>
  static bool is_streaming(sequence_view<T> const& v) {
    auto const whole_lines = [](size_t bytes) { return bytes % 64 == 0; };
    return Policy.streaming_bytes > 0 && size_t(v.count()) * sizeof(T) >= Policy.streaming_bytes &&
           whole_lines(reinterpret_cast<std::uintptr_t>(v.data)) && whole_lines(size_t(v.stride[0]) * sizeof(T)) &&
           whole_lines(size_t(v.stride[1]) * sizeof(T));
  }
};

/// A forward call whose arguments have valid extents: its kernel, parameters and workspace. Args is the operation's
/// forward_args and must outlive the call.
///   - short causal calls with a state: the step kernel
///   - on a GPU, if the shape has passes and they can do the call: the kernels of passes.hpp
///   - otherwise the generic kernel
template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
class conv_stack_forward_call {
 public:
  conv_stack_forward_call(Executor e, Args const& args) : executor_(e), args_(args), passes_can_run_(can_run_passes()) {
    if (uses_step_kernel() || uses_passes(true)) return;
    whole_ = make_params(1);
    split_ = agent::items(whole_) < tuned::max_workers(e) ? make_params(tuned::max_workers(e)) : whole_;
  }

  /// The workspace that the call needs. It must not depend on pointers, so it covers whole and split sequences, and
  /// kernels that cannot update a state in place if there are two states.
  workspace_bytes demand() const {
    if (uses_step_kernel() || uses_passes(true)) return {};
    workspace_bytes const whole = workspace_for<agent>(executor_, whole_),
                          split = workspace_for<agent>(executor_, split_);
    return {.least = whole.least, .all = max_of(whole.all, split.all)};
  }

  status launch(workspace scratch) const {
    if (uses_step_kernel())
      return tcnca::launch<step_agent>(executor_, step_agent::make_params(args_, traits::target.is_cpu()));
    bool const in_place = args_.state_out.present() && args_.state_out.data == args_.state_in.data;
    if constexpr (has_passes) {
      if (uses_passes(in_place)) return passes{executor_, args_}.launch();
    }
    // With the state in place sequences stay whole: a segment would read what another one has overwritten.
    params p = in_place ? whole_ : split_;
    // In a small workspace fewer workers run. Sequences are then split for those.
    for (index_t workers = in_place ? 1 : tuned::max_workers(executor_); workers > 1;) {
      index_t const used = min_of(workers, agent::items(p));
      index_t const fitting = workers_that_fit(used, traits::bytes_per_worker(agent::memory(p)), scratch.bytes);
      if (fitting == used) break;
      workers = max_of(fitting, index_t(1));
      p = make_params(workers);
    }
    return tcnca::launch<agent>(executor_, p, scratch);
  }

 private:
  using tuned = tuned_conv_stack<T, Shape, Tuning, Executor>;
  using traits = executor_traits<Executor>;
  using agent = typename tuned::forward_agent;
  using step_agent = typename tuned::step_agent;
  using params = typename agent::params_type;
  static constexpr conv_stack_policy policy = tuned::forward;
  static constexpr bool has_passes = tuned::template has_passes<policy.kernels, true>();
  using passes = conv_stack_forward_passes<T, Shape, policy.kernels, Executor, Args>;

  bool can_run_passes() const {
    if constexpr (has_passes) {
      return !uses_step_kernel() && passes{executor_, args_}.can_run();
    } else {
      return false;
    }
  }
  /// Whether the call runs in passes. in_place: if there are two states, they may be the same memory.
  bool uses_passes([[maybe_unused]] bool in_place) const {
    if constexpr (has_passes) {
      bool const updates_state = in_place && args_.state_in.given() && args_.state_out.given();
      return passes_can_run_ && (!updates_state || passes{executor_, args_}.can_update_in_place());
    } else {
      return false;
    }
  }

  /// Short calls use the step kernel: it reads only the taps that they need, where a walk would copy the whole state.
  bool uses_step_kernel() const {
    return Shape.dir == direction::causal && args_.state_out.given() &&
           args_.x.extent[2] < divide_up(Shape.receptive_field(), index_t(Shape.layers()) * Shape.taps);
  }

  /// All parameters that do not depend on the plan.
  params common_params() const {
    return {.x = args_.x,
            .weight = args_.weight,
            .bias = args_.bias,
            .omega = args_.omega,
            .state_in = args_.state_in,
            .y = args_.y,
            .state_out = args_.state_out,
            .slots = conv_stack_slots<Shape.layers()>::template of<Shape>(args_.position, args_.x.extent[2]),
            .x_vectorizable = is_vectorizable<Executor>(args_.x, Shape.order, agent::x_vector_elements),
            .y_vectorizable = is_vectorizable<Executor>(args_.y, Shape.order, agent::Lanes.width),
            .y_streaming = tuned::template is_streaming<policy>(args_.y)};
  }

  /// Length of the segments for so many workers. If there are fewer sequences, they are split, as long as a segment is
  /// much longer than the receptive field that it computes again.
  index_t segment_length(index_t sequences, index_t workers) const {
    index_t const length = max_of(args_.x.extent[2], index_t(1));
    if (policy.segment_fields == 0 || sequences >= workers) return length;
    index_t const shortest = max_of(policy.segment_fields * Shape.receptive_field(), index_t(policy.tile));
    index_t const even = divide_up(args_.x.extent[2], divide_up(workers, sequences));
    return min_of(length, round_up(max_of(even, shortest), index_t(policy.tile)));
  }

  params make_params(index_t workers) const {
    params p = common_params();
    index_t const length = args_.x.extent[2];
    p.segment_length = segment_length(max_of(index_t(1), agent::items(p)), workers);
    p.segments = divide_up(max_of(length, index_t(1)), p.segment_length);
    // A group sees this much of x; its layers wait for complete tiles.
    index_t walk = p.segment_length + Shape.receptive_field() + policy.tile;
    for (int l = 0; l < Shape.layers(); l++) walk += tuned::tiling::tile(l);
    p.plan =
        make_conv_stack_forward_plan<T, Shape, policy>(min_of(walk, length), p.segment_length, args_.state_in.given());
    return p;
  }

  Executor executor_;
  Args const& args_;
  bool passes_can_run_;
  params whole_, split_;  // whole sequences, and sequences split for all workers
};

/// A backward call of the generic kernel. Args is the operation's backward_args and must outlive the call.
template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
class conv_stack_generic_backward {
 public:
  conv_stack_generic_backward(Executor e, Args const& args) : executor_(e), args_(args), params_(make_params()) {}

  workspace_bytes demand() const { return workspace_for<agent>(executor_, params_, sums_bytes()); }

  /// Launches two kernels: the walk writes one result per sequence to the first part of the workspace, then these are
  /// added.
  status launch(workspace scratch) {
    params_.sums =
        contiguous(static_cast<accumulate*>(scratch.data), args_.x.extent[0], Shape.parameters(), args_.x.extent[1]);
    status const s = tcnca::launch<agent>(executor_, params_, workspace_after(scratch, sums_bytes()));
    if (!s.ok()) return s;
    return tcnca::launch<typename tuned::reduce_agent>(executor_, {.sums = params_.sums,
                                                                   .grad_weight = args_.grad_weight,
                                                                   .grad_bias = args_.grad_bias,
                                                                   .grad_omega = args_.grad_omega});
  }

 private:
  using tuned = tuned_conv_stack<T, Shape, Tuning, Executor>;
  using agent = typename tuned::backward_agent;
  using accumulate = accumulate_t<T>;
  static constexpr conv_stack_policy policy = tuned::backward;

  size_t sums_bytes() const {
    return workspace_part(size_t(args_.x.extent[0] * args_.x.extent[1]),
                          size_t(Shape.parameters()) * sizeof(accumulate));
  }

  typename agent::params_type make_params() const {
    return {.x = args_.x,
            .weight = args_.weight,
            .bias = args_.bias,
            .omega = args_.omega,
            .state_in = args_.state_in,
            .grad_y = args_.grad_y,
            .grad_state_out = args_.grad_state_out,
            .grad_x = args_.grad_x,
            .grad_state_in = args_.grad_state_in,
            .sums = {},
            .slots = conv_stack_slots<Shape.layers()>::template of<Shape>(args_.position, args_.x.extent[2]),
            .x_vectorizable = is_vectorizable<Executor>(args_.x, Shape.order, agent::x_vector_elements),
            .grad_y_vectorizable = is_vectorizable<Executor>(args_.grad_y, Shape.order, agent::Lanes.width),
            .grad_x_vectorizable = is_vectorizable<Executor>(args_.grad_x, Shape.order, agent::Lanes.width),
            .grad_x_streaming = tuned::template is_streaming<policy>(args_.grad_x),
            .plan = make_conv_stack_backward_plan<T, Shape, policy, agent::group_type::size()>(args_.x.extent[2],
                                                                                               args_.state_in.given())};
  }

  Executor executor_;
  Args const& args_;
  typename agent::params_type params_;
};

/// A backward call of a stack that has passes: in passes if they can do the call, otherwise with the generic kernel.
template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
class conv_stack_backward_in_passes {
 public:
  conv_stack_backward_in_passes(Executor e, Args const& args) : executor_(e), args_(args), passes_(e, args) {}

  workspace_bytes demand() const { return passes_.can_run() ? passes_.demand() : generic(executor_, args_).demand(); }
  status launch(workspace scratch) {
    return passes_.can_run() ? passes_.launch(scratch) : generic(executor_, args_).launch(scratch);
  }

 private:
  using tuned = tuned_conv_stack<T, Shape, Tuning, Executor>;
  using generic = conv_stack_generic_backward<T, Shape, Tuning, Executor, Args>;

  Executor executor_;
  Args const& args_;
  conv_stack_backward_passes<T, Shape, tuned::backward.kernels, Executor, Args> passes_;
};

/// A backward call whose arguments have valid extents.
template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
using conv_stack_backward_call =
    std::conditional_t<tuned_conv_stack<T, Shape, Tuning, Executor>::template has_passes<
                           Tuning::backward(executor_traits<Executor>::target).kernels, false>(),
                       conv_stack_backward_in_passes<T, Shape, Tuning, Executor, Args>,
                       conv_stack_generic_backward<T, Shape, Tuning, Executor, Args>>;

}  // namespace tcnca::detail
