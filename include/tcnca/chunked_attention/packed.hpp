// Calls whose sequences, states, positions and random numbers are in tables: shapes with the option `packed`. The
// agents of one sequence run on each sequence (block/packed.hpp); only the gradient of the biases adds over all of
// them.
#pragma once
#include "../block/packed.hpp"
#include "../launch/launch.hpp"
#include "backward_params.hpp"
#include "state.hpp"
#include "step_combine.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// In dispatch.hpp, which the includer of this file includes too.
template <element T, chunked_attention_shape Shape, class Tuning, class Executor>
struct chunked_attention_dispatch;

/// What a sequence replaces in the parameters of an agent, see packed_agent.
struct chunked_attention_sequence {
  static constexpr bool sequences_first = false;

  /// Without a state before, a sequence begins where the chunk of its position begins.
  TCNCA_HOST_DEVICE static index_t position(sequence_place const& s, bool has_state, index_t chunk) {
    return has_state && s.slot >= 0 ? s.position : s.position / chunk * chunk;
  }

  template <class Params>
  TCNCA_HOST_DEVICE static void select(Params& p, Params const& all, sequence_place const& s) {
    if constexpr (requires { p.in; }) { select_inputs(p.in, all.in, s); }
    if constexpr (requires { p.lse; }) { p.lse = sequence_part(all.lse, 2, s); }
    if constexpr (requires { p.o; }) { p.o = sequence_part(all.o, 2, s); }
    if constexpr (requires { p.results; }) { p.results = all.results + s.number * all.results_stride; }
    if constexpr (requires { p.grad_o; }) {
      p.grad_o = sequence_part(all.grad_o, 2, s);
      p.delta = all.delta + all.grad_o.extent[1] * (s.batch * all.grad_o.extent[2] + s.begin);
    }
    if constexpr (requires { p.grad_q; }) {
      p.grad_q = sequence_part(all.grad_q, 2, s);
      p.grad_k = sequence_part(all.grad_k, 2, s), p.grad_v = sequence_part(all.grad_v, 2, s);
      p.grad_keys_in = sequence_state(all.grad_keys_in, s), p.grad_values_in = sequence_state(all.grad_values_in, s);
      p.grad_keys_out = sequence_state(all.grad_keys_out, s),
      p.grad_values_out = sequence_state(all.grad_values_out, s);
      p.bias_sums = all.bias_sums + s.number * all.bias_stride,
      p.query_sums = all.query_sums + s.number * all.query_stride;
    }
    if constexpr (requires { p.after; }) {
      p.rows = sequence_part(all.rows, 2, s);
      p.before = sequence_state(all.before, s), p.after = sequence_state(all.after, s);
      p.position = position(s, all.before.present(), all.chunk);
      if (s.slot < 0) p.after.extent[0] = 0;
    }
  }

 private:
  template <class Inputs>
  TCNCA_HOST_DEVICE static void select_inputs(Inputs& in, Inputs const& all, sequence_place const& s) {
    in.q = sequence_part(all.q, 2, s), in.k = sequence_part(all.k, 2, s), in.v = sequence_part(all.v, 2, s);
    in.lengths = sequence_row(all.lengths, s);
    in.alibi_slopes = sequence_row(all.alibi_slopes, s), in.head_lengths = sequence_row(all.head_lengths, s);
    in.keys_in = sequence_state(all.keys_in, s), in.values_in = sequence_state(all.values_in, s);
    in.position = position(s, all.keys_in.present(), all.chunk);
    in.sequence = s.number;
    if (all.random_state.present())
      in.dropout.seed = *all.random_state.at(0), in.dropout.offset = *all.random_state.at(1);
  }
};

/// The gradient of the biases: the sums of the items of all sequences, added in their order. Item: 256 diagonals of a
/// head, each by one thread; no shared memory, no barriers. Agent: the one that stored the sums.
template <class Group, element T, class Agent>
struct chunked_attention_packed_biases_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = packed_params<chunked_attention_backward_params<T>>;
  static constexpr index_t block = 256;
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) {
    return divide_up(2 * p.all.in.chunk - 1, block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.all.grad_bias.extent[0] * blocks(p);
  }
  static group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_packed_biases_agent(Group g, params_type const& p, A*, A*)
      : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& in = params.all.in;
    index_t const head = item / blocks(params), from = item % blocks(params) * block;
    for (index_t d = from + group.rank(); d < min_of(from + block, 2 * in.chunk - 1); d += group.size()) {
      double sum = 0;  // fp64: there may be many items
      for (index_t s = 0; s < params.sequences.count; s++) {
        sequence_place const place = params.sequences[s];
        index_t const start = chunked_attention_sequence::position(place, in.keys_in.present(), in.chunk) % in.chunk;
        add(sum, params.all.bias_sums + s * params.all.bias_stride, head, d, start + place.length);
      }
      *params.all.grad_bias.at(head, d) = A(sum);
    }
  }

 private:
  /// Adds the sums of a sequence whose end is `end` positions after the beginning of its first chunk.
  TCNCA_HOST_DEVICE void add(double& sum, A const* sums, index_t head, index_t d, index_t end) const {
    auto const& in = params.all.in;
    index_t const chunks = divide_up(end, in.chunk);
    if constexpr (requires { Agent::bias_row(in.chunk); }) {
      index_t const row_blocks = Agent::row_blocks(params.all), row = Agent::bias_row(in.chunk);
      for (index_t n = 0; n < chunks * row_blocks; n++) {
        index_t const x = d - (in.chunk - 1) + n % row_blocks * Agent::Br + Agent::Br - 1;
        if (x >= 0 && x < row) sum += double(sums[(head * chunks * row_blocks + n) * row + x]);
      }
    } else {
      index_t const rows = min_of(in.chunk, end), length = 2 * rows - 1, x = d - (in.chunk - rows);
      index_t const items = chunks * params.all.plan.splits;
      if (x < 0 || x >= length) return;
      for (index_t n = 0; n < items; n++)
        sum += double(sums[((head / in.group * items + n) * in.group + head % in.group) * length + x]);
    }
  }
};

/// The launches of each entry point for shapes with the option `packed`. Arguments are valid.
template <element T, chunked_attention_shape Shape, class Tuning, class Executor>
struct chunked_attention_packed_dispatch {
  using A = accumulate_t<T>;
  using one_sequence = chunked_attention_dispatch<T, Shape, Tuning, Executor>;
  using agents = typename one_sequence::agents;
  template <class Agent>
  using packed = packed_agent<Agent, chunked_attention_sequence>;
  using steps = chunked_attention_steps<typename agents::step_agent, packed<typename agents::step_agent>,
                                        packed<typename agents::combine_agent>, Executor>;
  using forward_params = packed_params<chunked_attention_forward_params<T>>;
  struct backward_params : packed_params<chunked_attention_backward_params<T>> {
    index_t queries = 0;  // of all heads of all sequences
  };
  static constexpr bool softmax = one_sequence::softmax;

  static forward_params make_forward_params(auto const& a) {
    auto const table = sequence_table::of(a, a.q.extent[0], a.q.extent[2]);
    forward_params p{.all = one_sequence::make_forward_params(longest(a, table)), .sequences = table};
    p.all.in.vectorizable = one_sequence::make_forward_params(a).in.vectorizable;
    p.longest = table.max_length;
    return p;
  }
  static workspace_bytes forward_workspace(Executor e, forward_params const& p) {
    workspace_bytes bytes;
    if constexpr (step_limit > 0) {
      if (p.longest > 0) bytes = steps::workspace_for(e, step_params(p));
    }
    if (p.longest <= step_limit) return bytes;
    auto const more = workspace_for<packed<typename agents::forward_agent>>(e, p);
    return {.least = max_of(bytes.least, more.least), .all = max_of(bytes.all, more.all)};
  }
  TCNCA_HIDDEN static status forward(Executor e, forward_params p, tensor_view<T, 4> const& keys_out,
                                     tensor_view<T, 4> const& values_out, workspace scratch) {
    status s;
    if constexpr (step_limit > 0) {
      if (p.longest > 0) s = steps::launch(e, step_params(p), scratch);
    }
    p.shortest = step_limit + 1;
    if (s.ok() && p.longest > step_limit) s = launch<packed<typename agents::forward_agent>>(e, p, scratch);
    if (!s.ok() || !keys_out.present()) return s;
    s = launch_state(e, p, p.all.in.k, p.all.in.keys_in, keys_out);
    return s.ok() ? launch_state(e, p, p.all.in.v, p.all.in.values_in, values_out) : s;
  }

  static backward_params make_backward_params(auto const& a) {
    auto const table = sequence_table::of(a, a.q.extent[0], a.q.extent[2]);
    backward_params p;
    auto& all = p.all;
    all = one_sequence::make_backward_params(longest(a, table));
    all.in.vectorizable = one_sequence::make_backward_params(a).in.vectorizable;
    p.sequences = table, p.longest = table.max_length;
    p.queries = a.q.extent[0] * a.q.extent[1] * a.q.extent[2];
    if constexpr (agents::backward_tensor_cores) {
      if (Shape.bias) all.bias_stride = agents::grad_queries_agent::bias_elements(all);
    } else {
      index_t const rows = all.in.rows(), chunks = all.in.key_chunks();
      all.plan = agents::backward_agent::plan_for(all.in.key_dim(), all.in.value_dim(), rows, chunks * table.count,
                                                  all.in.group);
      index_t const items = chunks * all.plan.splits;
      all.bias_stride = items * all.in.group * (2 * rows - 1);
      all.query_stride = items * all.in.group * rows * all.plan.query_row;
    }
    return p;
  }
  static workspace_bytes backward_workspace(Executor e, backward_params const& p) {
    size_t const sums = sums_of(p).end;
    if constexpr (agents::backward_tensor_cores) {
      return workspace_for<packed<typename agents::grad_values_agent>>(e, p, sums);
    } else {
      return workspace_for<packed<typename agents::backward_agent>>(e, p, sums);
    }
  }
  TCNCA_HIDDEN static status backward(Executor e, backward_params p, tensor_view<T const, 4> o, workspace scratch) {
    char* const memory = static_cast<char*>(scratch.data);
    auto const at = sums_of(p);
    auto& all = p.all;
    all.delta = reinterpret_cast<A*>(memory + at.delta);
    all.bias_sums = reinterpret_cast<A*>(memory + at.bias);
    all.query_sums = reinterpret_cast<A*>(memory + at.query);
    status s;
    if constexpr (softmax) {
      o.extent[0] = 1, o.extent[2] = p.longest;
      s = launch<packed<typename agents::delta_agent>>(
          e, {.all = {.o = o, .grad_o = all.grad_o, .delta = all.delta, .vectorizable = all.in.vectorizable},
              .sequences = p.sequences,
              .longest = p.longest});
    }
    if (!s.ok()) return s;
    if constexpr (agents::backward_tensor_cores) {
      s = one_sequence::template launch_mma<packed>(e, p, all);
      return s.ok() && all.wants_biases() ? launch<biases_agent<typename agents::grad_queries_agent>>(e, p) : s;
    } else {
      s = launch<packed<typename agents::backward_agent>>(e, p, workspace_after(scratch, at.end));
      if (s.ok()) s = launch<packed<typename agents::reduce_agent>>(e, p);
      return s.ok() && all.wants_biases() ? launch<biases_agent<typename agents::backward_agent>>(e, p) : s;
    }
  }
  TCNCA_HIDDEN static status rotary(Executor e, auto const& a) { return one_sequence::rotary(e, a); }
  TCNCA_HIDDEN static status rotary_backward(Executor e, auto const& a) { return one_sequence::rotary_backward(e, a); }

 private:
  static constexpr index_t step_limit = Shape.causal ? chunked_attention_step_limit : 0;
  static auto sums_of(backward_params const& p) {
    return typename one_sequence::sums_layout(p.all, p.sequences.count, p.queries);
  }
  template <class Agent>
  using biases_agent = chunked_attention_packed_biases_agent<typename agents::backward_group, T, Agent>;

  /// The arguments of a call for one sequence that needs as many items and as much memory as any of the table.
  template <class Args>
  static Args longest(Args a, sequence_table const& table) {
    table.cut_to_longest(a.q, a.k, a.v, a.o, a.lse);
    if constexpr (requires { a.grad_o; }) { table.cut_to_longest(a.grad_o, a.grad_q, a.grad_k, a.grad_v); }
    if (table.positions.given()) a.position = Shape.causal ? a.chunk - 1 : 0;
    return a;
  }

  /// Short sequences use the step agent, as calls of one sequence do.
  static packed_params<chunked_attention_step_params<T>> step_params(forward_params const& p) {
    index_t const longest = min_of(p.longest, step_limit);
    packed_params<chunked_attention_step_params<T>> steps{
        .all = {p.all}, .sequences = p.sequences, .shortest = 1, .longest = longest};
    steps.all.in.q.extent[2] = longest;
    return steps;
  }
  TCNCA_HIDDEN static status launch_state(Executor e, forward_params const& p, tensor_view<T const, 4> const& rows,
                                          tensor_view<T const, 4> const& before, tensor_view<T, 4> after) {
    index_t const chunk = p.all.in.chunk, length = p.sequences.max_length;
    after.extent[0] = 1;
    // A position at which the state has the most slots to be written.
    index_t const position = (chunk - 1 - length % chunk + chunk) % chunk;
    return launch<packed<typename agents::state_agent>>(
        e, {.all = {.rows = rows, .before = before, .after = after, .chunk = chunk, .position = position},
            .sequences = p.sequences,
            .longest = length});
  }
};

template <bool Packed>
struct chunked_attention_dispatch_of {
  template <element T, chunked_attention_shape Shape, class Tuning, class Executor>
  using type = chunked_attention_dispatch<T, Shape, Tuning, Executor>;
};
template <>
struct chunked_attention_dispatch_of<true> {
  template <element T, chunked_attention_shape Shape, class Tuning, class Executor>
  using type = chunked_attention_packed_dispatch<T, Shape, Tuning, Executor>;
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
