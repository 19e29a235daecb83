// Combines the results of shares of keys, where items of the step agent are shares; which calls are split so.
#pragma once
#include "../launch/launch.hpp"
#include "step_rows.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Combines the results of the shares of a row. Item: Group::size() packs of columns of a query, each by one thread; no
/// shared memory, no barriers.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_combine_agent : detail::attention_step_group<Group, T, Shape, Policy> {
  using base = detail::attention_step_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::params_type, typename base::query_type;
  using base::group, base::in, base::params, base::W;
  static constexpr int columns = Group::size() * W;

  TCNCA_HOST_DEVICE chunked_attention_combine_agent(Group g, params_type const& p, A*, A*) : base{{g, p.in}, p} {}

  TCNCA_HOST_DEVICE static constexpr index_t tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::rows(p) * base::queries_per_row(p) * tiles(p);
  }
  static group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    int const q = int(item / tiles(params) % base::queries_per_row(params));
    index_t const number = item / tiles(params) / base::queries_per_row(params);
    auto const r = this->row_of(number);
    if (q >= r.count) return;
    query_type query{};
    typename base::keys_type keys;
    for (int n = 0; n < r.count; n++) {
      query_type const other = this->query_of(r, n);
      keys.add(other, n == 0);
      if (n == q) query = other;
    }
    int const column = int(item % tiles(params)) * columns + group.rank() * W;
    if (column >= in.value_dim()) return;
    constexpr int together = 8;  // loads in flight
    int const shares = keys.first < keys.last ? keys.last_share() - keys.first_share() : 0;
    detail::attention_step_statistics<A> statistics;
    value v = broadcast<W>(A(0));
    for (int s = 0; s < shares; s += together) {
      detail::array<value, together> part;
      detail::array<A, together> maximum, sum;
      unroll<0, together>([&](auto m) TCNCA_INLINE {
        A const* const from = base::result(number, min_of(s + m, shares - 1), q);
        part[m] = tcnca::load<W>(from + column);
        maximum[m] = from[base::result_columns(params)], sum[m] = from[base::result_columns(params) + 1];
      });
      unroll<0, together>([&](auto m) TCNCA_INLINE {
        if (s + m >= shares) return;
        if constexpr (base::softmax) { statistics.add(maximum[m], sum[m]); }
        v = base::combined(v, part[m], statistics);
      });
    }
    this->store_output(r, query, column, v, statistics.row.sum.lane(0));
    if (column == 0) this->store_statistics(r, query, statistics.row.maximum.lane(0), statistics.row.sum.lane(0));
  }
};

namespace detail {

/// The launches of a call of few queries. Step, Combine: Agent, a step agent, and its combine agent, or packed_agent of
/// them.
template <class Agent, class Step, class Combine, class Executor>
struct chunked_attention_steps {
  using traits = executor_traits<Executor>;
  using params_type = typename Step::params_type;

  /// Depends neither on the position nor, from as many rows as workers on, on the number of sequences: a workspace for
  /// the largest call of a program serves its other calls too.
  static workspace_bytes workspace_for(Executor e, params_type p) {
    auto const together = tcnca::workspace_for<Step>(e, p);
    of_sequence(p).in.position = of_sequence(p).in.chunk - 1;
    index_t const workers = traits::workers(e, largest<index_t>);
    index_t const split_rows = min_of(rows(p), workers - 1);
    if (split_rows == 0 || Agent::shares(of_sequence(p)) < 2) return together;
    auto const split =
        workspace_bytes::of(result_bytes(p, split_rows), traits::bytes_per_worker(Step::memory(p)), workers);
    return {.least = together.least, .all = max_of(together.all, split.all)};
  }
  /// Splits rows where there are fewer than workers, if the workspace has memory for the results.
  TCNCA_HIDDEN static status launch(Executor e, params_type p, workspace scratch) {
    auto& one = of_sequence(p);
    size_t const results = result_bytes(p, rows(p));
    if (Agent::shares(one) < 2 || rows(p) >= traits::workers(e, largest<index_t>) ||
        scratch.bytes < saturating_add(results, traits::bytes_per_worker(Step::memory(p))))
      return tcnca::launch<Step>(e, p, scratch);
    one.split = true, one.results = static_cast<typename Agent::A*>(scratch.data);
    one.results_stride = Agent::rows(one) * Agent::row_results(one);
    status const s = tcnca::launch<Step>(e, p, workspace_after(scratch, results));
    return s.ok() ? tcnca::launch<Combine>(e, p) : s;
  }

 private:
  static auto& of_sequence(params_type& p) {
    if constexpr (requires { p.all; }) {
      return p.all;
    } else {
      return p;
    }
  }
  static index_t rows(params_type& p) {
    index_t const each = Agent::rows(of_sequence(p));
    if constexpr (requires { p.all; }) {
      return p.sequences.count * each;
    } else {
      return each;
    }
  }
  static size_t result_bytes(params_type& p, index_t rows) {
    return workspace_part(size_t(saturating_multiply(rows, Agent::row_results(of_sequence(p)))),
                          sizeof(typename Agent::A));
  }
};

}  // namespace detail

}  // namespace tcnca
