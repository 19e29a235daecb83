// fiber_group: the threads of a CUDA block as fibers of one CPU thread, so that the thread decomposition of the GPU
// runs on a CPU. Between two barriers the fibers run one after another in random order. A missing barrier then changes
// bits for some seed; a barrier that only some fibers reach is divergence and fails the launch. 32 fibers are a warp
// and 128 a warpgroup, with barriers of their own (fiber_warp.hpp, fiber_warpgroup.hpp). The groups of a cluster run as
// one, with a cluster barrier. Under ThreadSanitizer each fiber is a thread, and only barriers order them.
#pragma once
#include <memory>

#include <tcnca/launch/cpu.hpp>

#include "fiber_scheduler.hpp"

namespace tcnca::testing {

/// N fibers as a group.
template <int N>
struct fiber_group {
  static_assert(N >= 1 && N <= fiber_scheduler::max_fibers);
  int rank_ = 0;

  int rank() const { return rank_; }
  static constexpr int size() { return N; }
  void sync() const { fiber_scheduler::get().barrier(); }
};

/// Runs agents on fiber groups, with the policy of the GPU. Threads: of a group; 0: as many as the policy says.
template <int Threads = 0>
struct fibers {
  std::uint64_t seed = 1;
  int groups = 3;  ///< maximum number; they run in random order and divide the items like blocks of a grid
};

}  // namespace tcnca::testing

#include "fiber_warp.hpp"
#include "fiber_warpgroup.hpp"
#include "shared_memory.hpp"

namespace tcnca {

template <int Threads>
struct executor_traits<testing::fibers<Threads>> {
  static constexpr tcnca::target target{90};
  template <int PolicyThreads>
  using group = testing::fiber_group<Threads == 0 ? PolicyThreads : Threads>;

  static constexpr size_t shared_memory_limit = 227 * 1024;  // of a block, on sm_90

  static constexpr bool valid(testing::fibers<Threads>) { return true; }
  static constexpr index_t workers(testing::fibers<Threads> e, index_t items) {
    return max_of(index_t(1), min_of(items, index_t(e.groups)));
  }
  static constexpr size_t bytes_per_worker(group_memory m) {
    return round_up(m.global_scratch_bytes, detail::workspace_granularity);
  }

  template <class Agent, class Params>
  static bool supports(testing::fibers<Threads>, group_memory memory = {}) {
    return memory.shared_memory_bytes <= shared_memory_limit;
  }
  template <class Agent, class Params>
  static index_t resident_groups(testing::fibers<Threads>, group_memory) {
    return 24;  // whatever e.groups is: how a call is split does not depend on what runs at the same time
  }

  template <class Agent, class Params>
  static status launch(testing::fibers<Threads> e, Params const& params, index_t items, group_memory memory,
                       workspace scratch) {
    if (items == 0) return {};
    if (memory.shared_memory_bytes > shared_memory_limit) return status_code::unsupported_device;

    struct job {
      Params const& params;
      index_t items, first, step;
      char *near[testing::fiber_cluster::most], *far;
      static void body(void* argument, int rank) {
        job const& j = *static_cast<job const*>(argument);
        using accumulate = typename Agent::A;
        typename Agent::group_type g;
        g.rank_ = rank % g.size();
        Agent agent(g, j.params, reinterpret_cast<accumulate*>(j.near[rank / g.size()]),
                    reinterpret_cast<accumulate*>(j.far));
        if constexpr (persistent<Agent>) {
          agent(item_range{j.first, j.items, j.step});
        } else {
          for (index_t item = j.first; item < j.items; item += j.step) agent(item);
        }
      }
    };
    auto& scheduler = testing::fiber_scheduler::get();
    testing::random_bits random{e.seed};
    int const groups =
        int(max_of(index_t(1), workers_that_fit(workers(e, items), bytes_per_worker(memory), scratch.bytes)));
    constexpr int cluster = testing::fiber_cluster::size_for<Agent>;
    // The memory of a group is kept until all have run, so that only the end of the launch orders two groups.
    struct given {
      std::unique_ptr<testing::shared_memory> near[cluster];
      job work;
    };
    std::unique_ptr<std::unique_ptr<given>[]> const all(new std::unique_ptr<given>[size_t(groups)]);
    std::unique_ptr<int[]> const order(new int[size_t(groups)]);
    random.permute(order.get(), groups);
    bool good = true;
    for (int i = 0; i < groups && good; i++) {
      int const g = order[size_t(i)];
      all[size_t(i)].reset(new given{{}, {params, items, g, groups, {}, nullptr}});
      job& work = all[size_t(i)]->work;
      for (int c = 0; c < cluster; c++) {
        all[size_t(i)]->near[c].reset(new testing::shared_memory(memory.shared_memory_bytes));
        testing::fiber_cluster::near[i % testing::fiber_scheduler::max_groups][c] = work.near[c] =
            all[size_t(i)]->near[c]->data();
      }
      work.far = static_cast<char*>(scratch.data) + size_t(g) * bytes_per_worker(memory);
      good =
          scheduler.run(cluster * Agent::group_type::size(), &job::body, &work, random(), i, Agent::group_type::size());
    }
    scheduler.join();
    for (int i = 0; i < groups * cluster; i++)
      if (all[size_t(i / cluster)] && !all[size_t(i / cluster)]->near[i % cluster]->intact()) {
        std::fprintf(stderr, "fiber_group: written outside of the group's shared memory\n");
        good = false;
      }
    return good ? status{} : status{status_code::launch_failed};
  }
};

}  // namespace tcnca
