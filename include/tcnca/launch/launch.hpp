// Launch of an agent on any executor.
#pragma once
#include "cpu.hpp"
#if defined(__CUDACC__)
#include "cuda.cuh"
#endif

namespace tcnca::inline TCNCA_TARGET {

/// Runs all items of an agent. The workspace must hold memory(params) for at least one worker; more workers run if it
/// holds more. On the CPU the call returns when the work is done; on a GPU it enqueues one kernel, or nothing if there
/// are no items.
template <agent Agent, class Executor>
TCNCA_HIDDEN status launch(Executor e, typename Agent::params_type const& params, workspace scratch = {}) {
  return executor_traits<Executor>::template launch<Agent>(e, params, Agent::items(params), Agent::memory(params),
                                                           scratch);
}

/// Bytes that a launch of an agent needs, plus `shared` bytes once for the whole call.
template <agent Agent, class Executor>
workspace_bytes workspace_for(Executor e, typename Agent::params_type const& params, size_t shared = 0) {
  using traits = executor_traits<Executor>;
  return workspace_bytes::of(shared, traits::bytes_per_worker(Agent::memory(params)),
                             traits::workers(e, Agent::items(params)));
}

}  // namespace tcnca
