// Launch on the CPU: the items of an agent, shared out to threads; each thread is a group of one.
#pragma once
#include "../block/group.hpp"
#include "../core/executor.hpp"
#include "../core/status.hpp"
#include "../core/workspace.hpp"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace tcnca::inline TCNCA_TARGET {

/// The machine that a tuning is asked for: 0 for the CPU, else a CUDA compute capability times ten (80, 90).
struct machine {
  int compute_capability = 0;
};

/// How an executor runs agents. A specialisation has `target` (a machine), `group<Threads>`, `valid`, `workers` and `launch`.
template <class Executor>
struct executor_traits;

/// Memory that one group needs: near (fast: shared memory on a GPU) and far (in the workspace).
struct group_memory {
  size near_bytes, far_bytes;
};

template <>
struct executor_traits<cpu> {
  static constexpr machine target{0};
  template <int Threads>
  using group = serial_group;

  static constexpr bool valid(cpu e) { return e.threads >= 0; }

  /// Groups that run at once.
  static index workers(cpu e, index items) {
#if defined(_OPENMP)
    index const threads = e.threads > 0 ? e.threads : omp_get_max_threads();
#else
    index const threads = 1;
    (void)e;
#endif
    return max(index(1), min(items, threads));
  }
  /// Workspace of one group; near and far memory both come from it.
  static constexpr size bytes_per_worker(group_memory m) {
    return round_up(m.near_bytes, workspace::alignment) + round_up(m.far_bytes, workspace::alignment);
  }

  template <class Agent, class Params>
  TCNCA_HIDDEN static status launch(cpu e, Params const& params, index items, group_memory memory, void* scratch) {
    using accumulate = typename Agent::A;
    index const threads = workers(e, items);
    size const near = round_up(memory.near_bytes, workspace::alignment), each = bytes_per_worker(memory);
#if defined(_OPENMP)
#pragma omp parallel num_threads(int(threads)) if (threads > 1)
#endif
    {
#if defined(_OPENMP)
      index const worker = omp_get_thread_num();
#else
      index const worker = 0;
#endif
      char* const own = static_cast<char*>(scratch) + size(worker) * each;
      Agent agent(serial_group{}, params, reinterpret_cast<accumulate*>(own), reinterpret_cast<accumulate*>(own + near));
#if defined(_OPENMP)
#pragma omp for schedule(dynamic)
#endif
      for (index item = 0; item < items; item++) agent(item);
    }
    (void)threads;
    return {};
  }
};

}  // namespace tcnca
