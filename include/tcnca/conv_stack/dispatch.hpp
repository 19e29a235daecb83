// From the arguments of a call to the kernels that run: agents, parameters, memory, segments.
#pragma once
#include <type_traits>

#include "../launch/alignment.hpp"
#include "../launch/launch.hpp"
#include "generic/backward.hpp"
#include "generic/forward.hpp"
#include "pass_calls.hpp"
#include "step.hpp"
#include "vector/backward.hpp"
#include "vector/forward.hpp"
#include "vector/short_rows.hpp"
#include "vector/short_rows_backward.hpp"

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
  /// Whether the forward kernel is the CPU's, not the generic one.
  static constexpr bool forward_in_blocks = traits::target.is_cpu() && forward.kernels != stack_kernels::generic;
  using forward_agent =
      std::conditional_t<forward_in_blocks, conv_stack_vector_forward_agent<forward_group, T, Shape, forward>,
                         conv_stack_forward_agent<forward_group, T, Shape, forward>>;
  using short_agent = conv_stack_short_rows_agent<forward_group, T, Shape, forward>;
  static constexpr bool has_short_rows = forward_in_blocks && short_agent::exists;
  using step_group = typename traits::template group<min_of(forward.threads, 128)>;  // many small blocks
  using step_agent = conv_stack_step_agent<step_group, T, Shape, forward>;
  /// The same of the backward kernel.
  static constexpr bool backward_in_steps = traits::target.is_cpu() && backward.kernels != stack_kernels::generic;
  using backward_agent =
      std::conditional_t<backward_in_steps, conv_stack_vector_backward_agent<backward_group, T, Shape, backward>,
                         conv_stack_backward_agent<backward_group, T, Shape, backward>>;
  using short_backward_agent = conv_stack_short_rows_backward_agent<backward_group, T, Shape, backward>;
  static constexpr bool has_short_rows_backward = backward_in_steps && short_backward_agent::exists;
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
           whole_lines(size_t(v.stride[Shape.order == layout::batch_channels_length ? 1 : 2]) * sizeof(T));
  }
};

/// A forward call whose arguments have valid extents: its kernel, parameters and workspace. Args is the operation's
/// forward_args and must outlive the call.
///   - short causal calls with a state: the step kernel
///   - on the CPU, rows of at most a block without a state: the kernel of short rows
///   - on a GPU, if the shape has passes and they can do the call: the kernels of passes.hpp
///   - otherwise the generic kernel
template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
class conv_stack_forward_call {
 public:
  conv_stack_forward_call(Executor e, Args const& args) : executor_(e), args_(args), passes_can_run_(can_run_passes()) {
    if (uses_step_kernel() || uses_short_rows() || uses_passes(true)) return;
    whole_ = make_params(1, args.x);
    split_ = agent::items(whole_) < tuned::max_workers(e) ? make_params(tuned::max_workers(e), args.x) : whole_;
  }

  /// The workspace that the call needs. It must not depend on pointers, so it covers whole and split sequences, and
  /// kernels that cannot update a state in place if there are two states.
  workspace_bytes demand() const {
    if (uses_step_kernel() || uses_short_rows() || uses_passes(true)) return {};
    workspace_bytes const whole = workspace_for<agent>(executor_, whole_),
                          split = workspace_for<agent>(executor_, split_);
    return {.least = whole.least, .all = max_of(whole.all, split.all)};
  }

  TCNCA_HIDDEN status launch(workspace scratch) const {
    if (uses_step_kernel()) return launch_steps(sequence_table::of(args_, args_.x.extent[0], args_.x.extent[2]));
    if constexpr (tuned::has_short_rows) {
      if (uses_short_rows())
        return tcnca::launch<short_agent>(
            executor_, short_agent::make_params(args_, tuned::template is_streaming<policy>(args_.y)));
    }
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
      p = make_params(workers, args_.x);
    }
    return tcnca::launch<agent>(executor_, p, scratch);
  }

 protected:
  /// For calls of many sequences (packed.hpp), which launch the kernels themselves.
  struct only_walk {};
  conv_stack_forward_call(Executor e, Args const& args, only_walk)
      : executor_(e), args_(args), passes_can_run_(false) {}

  using tuned = tuned_conv_stack<T, Shape, Tuning, Executor>;
  using traits = executor_traits<Executor>;
  using agent = typename tuned::forward_agent;
  using short_agent = typename tuned::short_agent;
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

  bool uses_short_rows() const {
    if constexpr (tuned::has_short_rows) {
      return short_agent::can_run(args_);
    } else {
      return false;
    }
  }
  /// Short calls use the step kernel: it reads only the taps that they need, where a walk would copy the whole state.
  bool uses_step_kernel() const {
    return Shape.dir == direction::causal && args_.state_out.given() && args_.x.extent[2] < step_limit;
  }
  static constexpr index_t step_limit = divide_up(Shape.receptive_field(), index_t(Shape.layers()) * Shape.taps);
  TCNCA_HIDDEN status launch_steps(sequence_table const& sequences) const {
    return tcnca::launch<step_agent>(executor_, step_agent::make_params(args_, sequences, step_limit));
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

  /// all: x of all sequences of the call.
  params make_params(index_t workers, sequence_view<T const> const& all) const {
    params p = common_params();
    index_t const length = args_.x.extent[2];
    if constexpr (tuned::forward_in_blocks) { p.packs = agent::packs_per_item(all, tuned::max_workers(executor_)); }
    p.segment_length = segment_length(max_of(index_t(1), agent::items(p)), workers);
    p.segments = divide_up(max_of(length, index_t(1)), p.segment_length);
    if constexpr (!tuned::forward_in_blocks) {
      // A group sees this much of x; its layers wait for complete tiles.
      index_t walk = p.segment_length + Shape.receptive_field() + policy.tile;
      for (int l = 0; l < Shape.layers(); l++) walk += tuned::tiling::tile(l);
      p.plan = make_conv_stack_forward_plan<T, Shape, policy>(min_of(walk, length), p.segment_length,
                                                              args_.state_in.given());
    }
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
  TCNCA_HIDDEN status launch(workspace scratch) {
    params_.sums =
        contiguous(static_cast<accumulate*>(scratch.data), args_.x.extent[0], Shape.parameters(), args_.x.extent[1]);
    status const s = tcnca::launch<agent>(executor_, params_, workspace_after(scratch, sums_bytes()));
    return s.ok() ? launch_reduce(params_.sums) : s;
  }

 protected:
  using tuned = tuned_conv_stack<T, Shape, Tuning, Executor>;
  using agent = typename tuned::backward_agent;
  using accumulate = accumulate_t<T>;
  static constexpr conv_stack_policy policy = tuned::backward;

  TCNCA_HIDDEN status launch_reduce(tensor_view<accumulate, 3> const& sums) {
    if (!has_parameter_gradients(args_)) return {};
    return tcnca::launch<typename tuned::reduce_agent>(
        executor_,
        {.sums = sums, .grad_weight = args_.grad_weight, .grad_bias = args_.grad_bias, .grad_omega = args_.grad_omega});
  }
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
            .plan = agent::make_plan(args_.x.extent[2], args_.state_in.given())};
  }

  Executor executor_;
  Args const& args_;
  typename agent::params_type params_;
};

/// A backward call of the kernel of short rows, on the CPU, if it can do the call.
template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
class conv_stack_backward_in_rows {
 public:
  conv_stack_backward_in_rows(Executor e, Args const& args) : executor_(e), args_(args) {}

  bool can_run() const { return agent::can_run(args_); }
  workspace_bytes demand() const { return workspace_for<agent>(executor_, make_params(nullptr), sums_bytes()); }
  TCNCA_HIDDEN status launch(workspace scratch) const {
    auto const params = make_params(static_cast<accumulate_t<T>*>(scratch.data));
    status const s = tcnca::launch<agent>(executor_, params, workspace_after(scratch, sums_bytes()));
    if (!s.ok() || !has_parameter_gradients(args_)) return s;
    return tcnca::launch<typename tuned::reduce_agent>(executor_, {.sums = params.sums,
                                                                   .grad_weight = args_.grad_weight,
                                                                   .grad_bias = args_.grad_bias,
                                                                   .grad_omega = args_.grad_omega});
  }

 private:
  using tuned = tuned_conv_stack<T, Shape, Tuning, Executor>;
  using agent = typename tuned::short_backward_agent;

  size_t sums_bytes() const {
    return workspace_part(size_t(agent::partial_sums(args_.x) * args_.x.extent[1]),
                          size_t(Shape.parameters()) * sizeof(accumulate_t<T>));
  }
  typename agent::params_type make_params(accumulate_t<T>* sums) const {
    return agent::make_params(args_,
                              contiguous(sums, agent::partial_sums(args_.x), Shape.parameters(), args_.x.extent[1]),
                              tuned::template is_streaming<tuned::backward>(args_.grad_x));
  }

  Executor executor_;
  Args const& args_;
};

/// A backward call of one of the two classes: the first one if it can do the call.
template <class First, class Otherwise, class Executor, class Args>
class conv_stack_backward_of_two {
 public:
  conv_stack_backward_of_two(Executor e, Args const& args) : executor_(e), args_(args), first_(e, args) {}

  workspace_bytes demand() const { return first_.can_run() ? first_.demand() : Otherwise(executor_, args_).demand(); }
  TCNCA_HIDDEN status launch(workspace scratch) {
    return first_.can_run() ? first_.launch(scratch) : Otherwise(executor_, args_).launch(scratch);
  }

 private:
  Executor executor_;
  Args const& args_;
  First first_;
};

template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
constexpr auto choose_backward_call() {
  using tuned = tuned_conv_stack<T, Shape, Tuning, Executor>;
  using generic = conv_stack_generic_backward<T, Shape, Tuning, Executor, Args>;
  if constexpr (tuned::template has_passes<tuned::backward.kernels, false>()) {
    using passes = conv_stack_backward_passes<T, Shape, tuned::backward.kernels, Executor, Args>;
    return std::type_identity<conv_stack_backward_of_two<passes, generic, Executor, Args>>{};
  } else if constexpr (tuned::has_short_rows_backward) {
    using rows = conv_stack_backward_in_rows<T, Shape, Tuning, Executor, Args>;
    return std::type_identity<conv_stack_backward_of_two<rows, generic, Executor, Args>>{};
  } else {
    return std::type_identity<generic>{};
  }
}

/// A backward call whose arguments have valid extents.
template <element T, conv_stack_shape Shape, class Tuning, class Executor, class Args>
using conv_stack_backward_call = typename decltype(choose_backward_call<T, Shape, Tuning, Executor, Args>())::type;

}  // namespace tcnca::detail
