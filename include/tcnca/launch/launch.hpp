// Launch of an agent on any executor.
#pragma once
#include <type_traits>

#include "../core/check.hpp"
#include "cpu.hpp"
#if defined(__CUDACC__)
#include "cuda.cuh"
#endif

namespace tcnca::inline TCNCA_TARGET {

/// The argument check of a call, after the test of the executor's own values.
template <class Executor>
argument_check check_executor(Executor e) {
  argument_check check;
  check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
  return check;
}

/// Runs all items of an agent, on as many workers as the workspace has memory for. Returns workspace_too_small if that
/// is not even one. On the CPU the call returns when the work is done; on a GPU it enqueues one kernel, or nothing if
/// there are no items. If `e` is a variable, the next launch with it may overlap the end of this one, which waits for
/// its own predecessors.
template <agent Agent, class Executor>
TCNCA_HIDDEN status launch(Executor&& e, typename Agent::params_type const& params, workspace scratch = {}) {
  using traits = executor_traits<std::remove_cvref_t<Executor>>;
  index_t const items = Agent::items(params);
  group_memory const memory = Agent::memory(params);
  if (items > 0 && scratch.bytes < traits::bytes_per_worker(memory)) return status_code::workspace_too_small;
  status const s = traits::template launch<Agent>(e, params, items, memory, scratch);
  if constexpr (requires { e.overlap_launch = true; }) {
    if (items > 0 && s.ok()) e.overlap_launch = true;
  }
  return s;
}

/// Bytes that a launch of an agent needs, plus `shared` bytes once for the whole call.
template <agent Agent, class Executor>
workspace_bytes workspace_for(Executor e, typename Agent::params_type const& params, size_t shared = 0) {
  using traits = executor_traits<Executor>;
  return workspace_bytes::of(shared, traits::bytes_per_worker(Agent::memory(params)),
                             traits::workers(e, Agent::items(params)));
}

}  // namespace tcnca
