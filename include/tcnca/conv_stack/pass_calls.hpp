// Calls that run as passes (see passes.hpp): parameters, segments, workspace, the order of the launches.
#pragma once
#include "../launch/alignment.hpp"
#include "../launch/launch.hpp"
#include "passes.hpp"
#include "reduce.hpp"
#include "skip.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Lengths that the kernels of passes accept: they count positions of a row with 32 bits.
inline constexpr index_t longest_pass = (index_t(1) << 31) - (index_t(1) << 20);

/// How rows are split into segments.
struct segmentation {
  int segments = 1, length = 0;
};
/// The split of `rows` rows that is done first by `resident` groups at a time. A segment computes `halo` positions
/// before it again.
constexpr segmentation choose_segments(index_t rows, index_t length, index_t resident, index_t halo, index_t grain) {
  segmentation best{1, int(round_up(max_of(length, index_t(1)), grain))};
  index_t const most = min_of(divide_up(max_of(length, index_t(1)), grain), index_t(64));
  index_t cost = divide_up(rows, resident) * best.length;
  for (index_t n = 2; n <= most; n++) {
    index_t const each = round_up(divide_up(length, n), grain), segments = divide_up(length, each);
    index_t const c = divide_up(rows * segments, resident) * (each + halo);
    if (c < cost) cost = c, best = {int(segments), int(each)};
  }
  return best;
}

/// Agents that split rows into segments.
template <class Agent>
concept splits_rows = requires {
  Agent::segment_grain;
};

/// Shortest length for which an agent may update a state in place.
template <class Agent>
inline constexpr index_t in_place_length = 1;
template <class Agent>
requires requires { Agent::in_place_length; }
inline constexpr index_t in_place_length<Agent> = Agent::in_place_length;

/// Sets the segments of a pass's parameters for a device; `whole`: one segment a row.
template <class Agent, class Executor>
typename Agent::params_type with_segments(Executor e, typename Agent::params_type p, bool whole) {
  using params = typename Agent::params_type;
  index_t const length = p.x.extent[2];
  segmentation s{1, int(length)};
  if constexpr (splits_rows<Agent>) {
    s.length = int(round_up(max_of(length, index_t(1)), index_t(Agent::segment_grain)));
    if (!whole)
      s = choose_segments(Agent::items(p), length,
                          executor_traits<Executor>::template resident_groups<Agent, params>(e, Agent::memory(p)),
                          Agent::halo, Agent::segment_grain);
  }
  p.segments = s.segments, p.segment_length = s.length;
  return p;
}

/// Whether the device has the shared memory and the code for an agent of passes, whose memory is a constant.
template <class Agent, class Executor>
bool is_supported(Executor e) {
  using params = typename Agent::params_type;
  return executor_traits<Executor>::template supports<Agent, params>(e, Agent::memory(params{}));
}

/// A forward call in passes. Args is the operation's forward_args.
template <element T, conv_stack_shape Shape, stack_kernels Allowed, class Executor, class Args>
struct conv_stack_forward_passes {
  static constexpr stack_passes passes = forward_passes<T, Shape, Allowed>();
  static constexpr bool round_between_layers = [] {
    bool rounds = passes.count > 1 || Shape.skip;
    for (int i = 0; i < passes.count; i++)
      rounds =
          rounds || passes.pass[i].kernel == pass_kernel::tensor || passes.pass[i].kernel == pass_kernel::tensor_column;
    return rounds && sizeof(T) == 2;
  }();

  Executor executor;
  Args const& args;

  /// Whether these kernels can do the call on this device, if it does not update a state in place.
  bool can_run() const { return args.x.extent[2] > 0 && args.x.extent[2] <= longest_pass && are_supported<0>(); }
  /// Whether they can also update a state in place.
  bool can_update_in_place() const { return args.x.extent[2] >= shortest_in_place<0>(); }
  TCNCA_HIDDEN status launch() { return launch_from<0>(); }

 private:
  template <int I>
  using agent = forward_pass_agent<T, without_skip(Shape), passes.pass[I].kernel, passes.pass[I].layers,
                                   executor_traits<Executor>>;

  template <int I>
  bool are_supported() const {
    if (!is_supported<agent<I>>(executor)) return false;
    if constexpr (I + 1 < passes.count) { return are_supported<I + 1>(); }
    return true;
  }
  template <int I>
  static constexpr index_t shortest_in_place() {
    if constexpr (I < passes.count) {
      return max_of(in_place_length<agent<I>>, shortest_in_place<I + 1>());
    } else {
      return 0;
    }
  }
  template <int I>
  TCNCA_HIDDEN status launch_from() {
    using params = typename agent<I>::params_type;
    sequence_view<T const> const x = I == 0 ? args.x : sequence_view<T const>(args.y);
    bool const in_place = args.state_out.present() && args.state_out.data == args.state_in.data;
    // A pass in place must not split its rows: a segment would read what another one has overwritten.
    params const p = with_segments<agent<I>>(
        executor,
        params{.x = x,
               .weight = args.weight,
               .bias = args.bias,
               .state_in = args.state_in,
               .y = args.y,
               .state_out = args.state_out,
               .position = args.position,
               .x_vectorizable = is_vectorizable<Executor>(x, Shape.order, 16 / sizeof(T)),
               .y_vectorizable = is_vectorizable<Executor>(args.y, Shape.order, 16 / sizeof(T))},
        in_place || I > 0);
    status const s = tcnca::launch<agent<I>>(executor, p);
    if constexpr (I + 1 < passes.count) {
      return s.ok() ? launch_from<I + 1>() : s;
    } else if constexpr (Shape.skip) {
      return s.ok() ? launch_skip() : s;
    } else {
      return s;
    }
  }
  TCNCA_HIDDEN status launch_skip() {
    constexpr index_t vector = 16 / sizeof(T);
    using skip_agent = conv_stack_skip_agent<typename executor_traits<Executor>::template group<256>, T, Shape>;
    return tcnca::launch<skip_agent>(executor,
                                     {.x = args.x,
                                      .omega = args.omega,
                                      .y = args.y,
                                      .vectorizable = is_vectorizable<Executor>(args.x, Shape.order, vector) &&
                                                      is_vectorizable<Executor>(args.y, Shape.order, vector)});
  }
};

/// A backward call in passes. Args is the operation's backward_args. If the stack is split at a layer, grad_x holds the
/// input of that layer, then its gradient, before it receives the result; where it is absent, the workspace does.
template <element T, conv_stack_shape Shape, stack_kernels Allowed, class Executor, class Args>
class conv_stack_backward_passes {
 public:
  static constexpr stack_backward_passes passes =
      backward_passes<T, Shape, Allowed, executor_traits<Executor>::target>();
  /// Whether high layers are computed by a pass of their own.
  static constexpr bool is_split = passes.exists && passes.split < Shape.layers();
  static constexpr bool round_between_layers =
      passes.exists && sizeof(T) == 2 && (is_split || passes.low == pass_kernel::tensor);

  conv_stack_backward_passes(Executor e, Args const& args) : executor_(e), args_(args), can_run_(serves_call()) {
    if (!can_run_) return;
    if constexpr (is_split) {
      auto const& n = args.x.extent;
      sequence_view<T> const inner =
          args.grad_x.given() ? args.grad_x : sequence(static_cast<T*>(nullptr), Shape.order, n[0], n[1], n[2]);
      recompute_ = with_segments<recompute_agent>(e, recompute_params(inner), false);
      high_ = with_segments<high_agent>(e, params_of(inner, args.grad_y, inner), true);
      low_ = with_segments<low_agent>(e, params_of(args.x, inner, args.grad_x), true);
    } else {
      low_ = with_segments<low_agent>(e, params_of(args.x, args.grad_y, args.grad_x), false);
    }
  }

  /// Whether these kernels can do the call on this device.
  bool can_run() const { return can_run_; }
  workspace_bytes demand() const {
    size_t const bytes = saturating_add(low_bytes(), is_split ? saturating_add(high_bytes(), inner_bytes()) : 0);
    return {.least = bytes, .all = bytes};
  }

  TCNCA_HIDDEN status launch(workspace scratch) {
    low_.sums = sums_of<low_layers>(scratch, parts_of<low_agent>(low_));
    if constexpr (is_split) {
      workspace const rest = workspace_after(scratch, low_bytes());
      high_.sums = sums_of<high_layers>(rest, parts_of<high_agent>(high_));
      if (inner_bytes() > 0) {
        T* const inner = static_cast<T*>(workspace_after(rest, high_bytes()).data);
        recompute_.y.data = high_.grad_x.data = inner, high_.x.data = low_.grad_y.data = inner;
      }
      if (status const s = tcnca::launch<recompute_agent>(executor_, recompute_); !s.ok()) return s;
      if (status const s = tcnca::launch<high_agent>(executor_, high_); !s.ok()) return s;
      if (status const s = reduce<high_layers>(high_.sums); !s.ok()) return s;
    }
    if (status const s = tcnca::launch<low_agent>(executor_, low_); !s.ok()) return s;
    return reduce<low_layers>(low_.sums);
  }

 private:
  using A = accumulate_t<T>;
  using traits = executor_traits<Executor>;
  static constexpr layer_range low_layers{0, passes.split}, high_layers{is_split ? passes.split : 0, Shape.layers()};
  using low_agent = backward_pass_agent<T, Shape, passes.low, low_layers, traits>;
  using recompute_agent = forward_pass_agent<T, Shape, passes.recompute, low_layers, traits>;
  using high_agent = backward_pass_agent<T, Shape, is_split ? pass_kernel::column : passes.low, high_layers, traits>;
  using Weight = parameter_t<T, Shape.weights>;
  using params = conv_stack_backward_pass_params<T, Weight>;

  bool serves_call() const {
    bool const states = args_.state_in.given() || args_.grad_state_out.given() || args_.grad_state_in.given();
    if (states || args_.x.extent[2] > longest_pass || args_.x.extent[2] == 0) return false;
    if constexpr (is_split) {
      if (!is_supported<recompute_agent>(executor_) || !is_supported<high_agent>(executor_)) return false;
    }
    return is_supported<low_agent>(executor_);
  }

  /// Rows of partial sums for each sequence of the batch.
  template <class Agent>
  static index_t parts_of(params const& p) {
    if constexpr (requires { Agent::parts(p); }) {
      return Agent::parts(p);
    } else {
      return p.segments;
    }
  }
  template <layer_range Layers>
  static constexpr index_t parameters() {
    return index_t(Layers.count()) * (Shape.taps + (Shape.bias ? 1 : 0));
  }
  size_t low_bytes() const { return bytes_of<low_layers>(parts_of<low_agent>(low_)); }
  size_t high_bytes() const { return bytes_of<high_layers>(parts_of<high_agent>(high_)); }
  /// Of what grad_x holds between the passes, if it is absent.
  size_t inner_bytes() const {
    if (args_.grad_x.given()) return 0;
    return workspace_part(size_t(args_.x.extent[0] * args_.x.extent[1]), size_t(args_.x.extent[2]) * sizeof(T));
  }
  template <layer_range Layers>
  size_t bytes_of(index_t parts) const {
    return workspace_part(size_t(args_.x.extent[0] * args_.x.extent[1] * parts),
                          size_t(parameters<Layers>()) * sizeof(A));
  }
  template <layer_range Layers>
  tensor_view<A, 3> sums_of(workspace scratch, index_t parts) const {
    return contiguous(static_cast<A*>(scratch.data), args_.x.extent[0] * parts, parameters<Layers>(),
                      args_.x.extent[1]);
  }
  template <layer_range Layers>
  TCNCA_HIDDEN status reduce(tensor_view<A, 3> const& sums) {
    using agent = conv_stack_reduce_agent<typename traits::template group<256>, T, Shape, Layers>;
    if (!has_parameter_gradients(args_)) return {};
    return tcnca::launch<agent>(
        executor_, {.sums = sums, .grad_weight = args_.grad_weight, .grad_bias = args_.grad_bias, .grad_omega = {}});
  }

  params params_of(sequence_view<T const> const& x, sequence_view<T const> const& grad_y,
                   sequence_view<T> const& grad_x) const {
    constexpr index_t vector = 16 / sizeof(T);
    return {.x = x,
            .weight = args_.weight,
            .bias = args_.bias,
            .grad_y = grad_y,
            .grad_x = grad_x,
            .sums = {},
            .x_vectorizable = is_vectorizable<Executor>(x, Shape.order, vector),
            .grad_y_vectorizable = is_vectorizable<Executor>(grad_y, Shape.order, vector),
            .grad_x_vectorizable = is_vectorizable<Executor>(grad_x, Shape.order, vector)};
  }
  conv_stack_pass_params<T, Weight> recompute_params(sequence_view<T> const& y) const {
    return {.x = args_.x,
            .weight = args_.weight,
            .bias = args_.bias,
            .state_in = {},
            .y = y,
            .state_out = {},
            .x_vectorizable = is_vectorizable<Executor>(args_.x, Shape.order, 16 / sizeof(T)),
            .y_vectorizable = is_vectorizable<Executor>(y, Shape.order, 16 / sizeof(T))};
  }

  Executor executor_;
  Args const& args_;
  bool can_run_;
  params low_ = {}, high_ = {};
  conv_stack_pass_params<T, Weight> recompute_ = {};
};

}  // namespace tcnca::detail
