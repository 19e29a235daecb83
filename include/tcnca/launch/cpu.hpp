// Launch on the CPU: threads take the items of an agent, several at a time at first; each thread is a group of one.
#pragma once
#include "../arch/floating_point_mode.hpp"
#include "../block/group.hpp"
#include "executor_traits.hpp"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace tcnca::inline TCNCA_TARGET {

/// The base of executor_traits for threads of the CPU. To run on threads of your own, for example on the pool of a
/// framework, specialize executor_traits for an executor type of your own (a value that is copied into each call):
///
///     template <>
///     struct tcnca::executor_traits<my_pool> : tcnca::cpu_executor_traits<my_pool> {
///       static bool valid(my_pool e);       // whether the executor's own values are valid
///       static index_t threads(my_pool e);  // the maximum number of threads of a call, at least 1
///       // Calls work(data, 0) to work(data, threads - 1), each once, on any threads; returns when all have returned.
///       static void run(my_pool e, index_t threads, void (*work)(void* data, index_t worker), void* data);
///     };
///
/// The calls of `work` share the items of the operation. They may run one after another; best is as many at a time as
/// there are threads. They do not throw, and they compute in the floating-point mode of the caller. `run` must not
/// throw either; if several threads call operations at the same time, `run` must allow it. Results have the bits of
/// cpu.
template <class Executor>
struct cpu_executor_traits {
  static constexpr tcnca::target target{0};
  template <int Threads>
  using group = serial_group;

  /// Groups that run at the same time.
  static index_t workers(Executor e, index_t items) {
    if (!executor_traits<Executor>::valid(e)) return 1;
    return max_of(index_t(1), min_of(items, executor_traits<Executor>::threads(e)));
  }
  /// Workspace of one group. Shared memory and global scratch are both part of it.
  static constexpr size_t bytes_per_worker(group_memory m) {
    return round_up(m.shared_memory_bytes, detail::workspace_granularity) +
           round_up(m.global_scratch_bytes, detail::workspace_granularity);
  }

  template <class Agent, class Params>
  TCNCA_HIDDEN static status launch(Executor e, Params const& params, index_t items, group_memory memory,
                                    workspace scratch) {
    size_t const each = bytes_per_worker(memory);
    index_t const threads = max_of(index_t(1), workers_that_fit(workers(e, items), each, scratch.bytes));
    index_t next = 0;
    detail::floating_point_mode const mode = detail::floating_point_mode::current();
    auto work = [&](index_t worker) {
      detail::scoped_floating_point_mode const scope(mode);
      run_items<Agent>(params, items, threads, next, static_cast<char*>(scratch.data) + size_t(worker) * each,
                       round_up(memory.shared_memory_bytes, detail::workspace_granularity));
    };
    if (threads == 1) {
      work(0);
    } else {
      executor_traits<Executor>::run(
          e, threads, [](void* data, index_t worker) { (*static_cast<decltype(work)*>(data))(worker); }, &work);
    }
    return {};
  }

 private:
  /// One worker: takes a part of the remaining items until none is left. The parts become smaller, down to one item:
  /// the atomic addition waits for all stores of the item before it. Not inlined, so that no arithmetic is moved out of
  /// the scope of the floating-point mode.
  template <class Agent, class Params>
  TCNCA_HIDDEN __attribute__((noinline)) static void run_items(Params const& params, index_t items, index_t workers,
                                                               index_t& next, char* own, size_t shared_memory_bytes) {
    static_assert(same<typename Agent::group_type, serial_group>,
                  "tcnca::launch: on the CPU an agent's group_type must be serial_group, see executor_traits::group");
    using accumulate = typename Agent::A;
    Agent agent(serial_group{}, params, reinterpret_cast<accumulate*>(own),
                reinterpret_cast<accumulate*>(own + shared_memory_bytes));
    for (;;) {
      index_t const left = items - __atomic_load_n(&next, __ATOMIC_RELAXED),
                    count = workers == 1 ? items : max_of(index_t(1), left / (4 * workers)),
                    first = __atomic_fetch_add(&next, count, __ATOMIC_RELAXED);
      if (first >= items) return;
      for (index_t item = first; item < min_of(first + count, items); item++) agent(item);
    }
  }
};

/// OpenMP's threads. A call on one thread does not enter OpenMP: after a fork, the child's OpenMP would wait for
/// threads that exist only in the parent.
template <>
struct executor_traits<cpu> : cpu_executor_traits<cpu> {
  static constexpr bool valid(cpu e) { return e.threads >= 0; }

#if defined(_OPENMP)
  static index_t threads(cpu e) { return min_of(e.threads > 0 ? e.threads : omp_get_max_threads(), cpu::max_threads); }
  static void run(cpu, index_t threads, void (*work)(void*, index_t), void* data) {
#pragma omp parallel num_threads(int(threads))
    work(data, omp_get_thread_num());
  }
#else
  static index_t threads(cpu) { return 1; }
  static void run(cpu, index_t, void (*work)(void*, index_t), void* data) { work(data, 0); }
#endif
};

}  // namespace tcnca
