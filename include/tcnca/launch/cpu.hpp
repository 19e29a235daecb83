// Launch on the CPU: threads take the items of an agent one at a time; each thread is a group of one.
#pragma once
#include "../arch/floating_point_mode.hpp"
#include "../block/group.hpp"
#include "executor_traits.hpp"
#if defined(_OPENMP)
#include <omp.h>
#endif

namespace tcnca::inline TCNCA_TARGET {

template <>
struct executor_traits<cpu> {
  static constexpr tcnca::target target{0};
  template <int Threads>
  using group = serial_group;

  static constexpr bool valid(cpu e) { return e.threads >= 0; }

  /// Groups that run at the same time.
  static index_t workers(cpu e, index_t items) {
#if defined(_OPENMP)
    index_t const threads = min_of(e.threads > 0 ? e.threads : omp_get_max_threads(), cpu::max_threads);
#else
    index_t const threads = 1;
    (void)e;
#endif
    return max_of(index_t(1), min_of(items, threads));
  }
  /// Workspace of one group. Shared memory and global scratch are both part of it.
  static constexpr size_t bytes_per_worker(group_memory m) {
    return round_up(m.shared_memory_bytes, workspace::alignment) +
           round_up(m.global_scratch_bytes, workspace::alignment);
  }

  template <class Agent, class Params>
  TCNCA_HIDDEN static status launch(cpu e, Params const& params, index_t items, group_memory memory,
                                    workspace scratch) {
    size_t const each = bytes_per_worker(memory);
    [[maybe_unused]] index_t const threads =
        max_of(index_t(1), workers_that_fit(workers(e, items), each, scratch.bytes));
    index_t next = 0;
    auto const work = [&](index_t worker) {
      run_items<Agent>(params, items, next, static_cast<char*>(scratch.data) + size_t(worker) * each,
                       round_up(memory.shared_memory_bytes, workspace::alignment));
    };
#if defined(_OPENMP)
    // A single worker does not use OpenMP: after a fork, the child's OpenMP would wait for threads that exist only in
    // the parent.
    if (threads > 1) {
      detail::floating_point_mode const mode = detail::floating_point_mode::current();
#pragma omp parallel num_threads(int(threads))
      {
        detail::scoped_floating_point_mode const scope(mode);
        work(omp_get_thread_num());
      }
      return {};
    }
#endif
    work(0);
    return {};
  }

 private:
  /// One worker: takes the next item until none is left. Not inlined, so that no arithmetic is moved out of the scope
  /// of the floating-point mode.
  template <class Agent, class Params>
  TCNCA_HIDDEN __attribute__((noinline)) static void run_items(Params const& params, index_t items, index_t& next,
                                                               char* own, size_t shared_memory_bytes) {
    static_assert(same<typename Agent::group_type, serial_group>,
                  "tcnca::launch: on the CPU an agent's group_type must be serial_group, see executor_traits::group");
    using accumulate = typename Agent::A;
    Agent agent(serial_group{}, params, reinterpret_cast<accumulate*>(own),
                reinterpret_cast<accumulate*>(own + shared_memory_bytes));
    for (index_t item; (item = __atomic_fetch_add(&next, 1, __ATOMIC_RELAXED)) < items;) agent(item);
  }
};

}  // namespace tcnca
