// What an executor must provide to run agents.
#pragma once
#include "../block/agent.hpp"
#include "../core/executor.hpp"
#include "../core/status.hpp"
#include "../core/target.hpp"
#include "../core/workspace.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How an executor runs agents. Operations call launch() and workspace_for() of launch.hpp instead. For threads of your
/// own, derive from cpu_executor_traits (cpu.hpp), which needs three functions. A complete specialization has:
///
///     target                            the processor family that tunings are asked for
///     group<Threads>                    the group type for a policy of so many threads
///     valid(e)                          whether the executor's own values are valid
///     workers(e, items)                 groups that run at the same time, at least 1
///     bytes_per_worker(memory)          workspace of one group
///     launch<Agent>(e, params, items, memory, workspace)
///                                       runs all items on as many workers as fit in the workspace, at least one
///     resident_groups<Agent, Params>(e, memory)
///                                       GPU only: groups that the device can hold at the same time, at least 1
///     supports<Agent, Params>(e, memory)
///                                       GPU only: whether the device can run the code compiled for this agent and has
///                                       this shared memory
template <class Executor>
struct executor_traits;

/// How many of `workers` groups fit in a workspace of `bytes` if each needs `each` bytes.
constexpr index_t workers_that_fit(index_t workers, size_t each, size_t bytes) {
  return each == 0 || bytes / each >= size_t(workers) ? workers : index_t(bytes / each);
}

}  // namespace tcnca
