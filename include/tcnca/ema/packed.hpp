// Calls of an EMA whose sequences are packed, or whose states are rows that a table names.
#pragma once
#include "../block/packed.hpp"
#include "dispatch.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// What a sequence replaces in the parameters of an agent, see packed_agent.
template <ema_shape Shape, class Agent>
struct ema_packed_sequence {
  static constexpr bool sequences_first = Shape.order == layout::batch_channels_length;

  template <class Params>
  TCNCA_HOST_DEVICE static void select(Params& p, Params const& all, sequence_place const& s) {
    p.x = sequence_part(all.x, 2, s), p.x_vectorizable = all.x_vectorizable && is_aligned(s, all.x);
    p.state_in = sequence_state(all.state_in, s);
    if constexpr (requires { p.y; }) {
      p.y = sequence_part(all.y, 2, s), p.y_vectorizable = all.y_vectorizable && is_aligned(s, all.y);
      p.state_out = sequence_state(all.state_out, s);
    } else {
      p.grad_y = sequence_part(all.grad_y, 2, s), p.grad_x = sequence_part(all.grad_x, 2, s);
      p.grad_y_vectorizable = all.grad_y_vectorizable && is_aligned(s, all.grad_y);
      p.grad_x_vectorizable = all.grad_x_vectorizable && is_aligned(s, all.grad_x);
      p.grad_state_out = sequence_state(all.grad_state_out, s);
      p.grad_state_in = sequence_state(all.grad_state_in, s);
      p.sums = sequence_row(all.sums, s);
    }
  }

 private:
  /// Whether vectors of the sequence are aligned if those of the tensor are. A CPU accesses vectors at any address.
  template <class T>
  TCNCA_HOST_DEVICE static bool is_aligned(sequence_place const& s, sequence_view<T> const& v) {
    return Agent::group_type::size() == 1 || s.begin * v.stride[2] % Agent::tiling::vector_elements == 0;
  }
};

/// As tuned_ema, for the sequences of a table. Each has a row of partial sums.
template <element T, ema_shape Shape, class Tuning, class Executor>
struct tuned_packed_ema : tuned_ema<T, Shape, Tuning, Executor> {
  using base = tuned_ema<T, Shape, Tuning, Executor>;
  template <class Agent>
  using packed = packed_agent<Agent, ema_packed_sequence<Shape, Agent>>;
  using forward_agent = packed<typename base::forward_agent>;
  using backward_agent = packed<typename base::backward_agent>;

  static workspace_bytes forward_bytes(Executor e, auto const& a) {
    return workspace_for<forward_agent>(e, forward_params(a));
  }
  TCNCA_HIDDEN static status forward(Executor e, auto const& a, workspace scratch) {
    return launch<forward_agent>(e, forward_params(a), scratch);
  }

  static workspace_bytes backward_bytes(Executor e, auto const& a) {
    auto const params = backward_params(a, nullptr);
    return workspace_for<backward_agent>(e, params, base::sums_bytes(params.all));
  }
  TCNCA_HIDDEN static status backward(Executor e, auto const& a, workspace scratch) {
    auto const params = backward_params(a, static_cast<double*>(scratch.data));
    status const s = launch<backward_agent>(e, params, workspace_after(scratch, base::sums_bytes(params.all)));
    return s.ok() ? base::reduce(e, a, params.all) : s;
  }

 private:
  static sequence_table table(auto const& a) { return sequence_table::of(a, a.x.extent[0], a.x.extent[2]); }
  static typename forward_agent::params_type forward_params(auto const& a) {
    typename forward_agent::params_type p{.all = base::forward_params(a), .sequences = table(a)};
    p.longest = p.sequences.max_length;
    p.sequences.cut_to_longest(p.all.x, p.all.y);
    return p;
  }
  static typename backward_agent::params_type backward_params(auto const& a, double* sums) {
    typename backward_agent::params_type p{.all = base::backward_params(a, sums), .sequences = table(a)};
    p.longest = p.sequences.max_length;
    p.sequences.cut_to_longest(p.all.x, p.all.grad_y, p.all.grad_x);
    p.all.sums.extent[0] = p.sequences.count;
    return p;
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
