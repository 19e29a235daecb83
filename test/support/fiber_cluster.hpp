// Cluster operations for fibers. Included by fiber.hpp.
#pragma once
#include <cstring>

#include <tcnca/block/agent.hpp>
#include <tcnca/block/cluster.hpp>

namespace tcnca::testing {

/// The shared memories of the groups of a cluster, one set for each cluster, because nothing orders two clusters.
struct fiber_cluster {
  static constexpr int most = 8;
  static inline char* near[fiber_scheduler::max_groups][most] = {};
  /// Of group `rank` of the cluster that runs.
  static char* of(int rank) { return near[fiber_scheduler::get().group()][rank]; }
  template <class Agent>
  static constexpr int size_for = [] {
    if constexpr (clustered<Agent>) {
      return Agent::cluster_size;
    } else {
      return 1;
    }
  }();
};

}  // namespace tcnca::testing

namespace tcnca {

template <int Threads, int N>
struct cluster_of<testing::fiber_group<Threads>, N> {
  static_assert(N <= testing::fiber_cluster::most && N * Threads <= testing::fiber_scheduler::max_fibers);
  int rank() const { return testing::fiber_scheduler::get().block(); }
  void sync() const { testing::fiber_scheduler::get().cluster_barrier(); }
  void arrive() const { testing::fiber_scheduler::get().cluster_arrive(); }
  void wait() const { testing::fiber_scheduler::get().cluster_wait(); }
  void fence_proxy_async() const {}
  template <class X>
  void store(void* p, int other, X const& x) const {
    auto const offset = static_cast<char*>(p) - testing::fiber_cluster::of(rank());
    if (other < 0 || other >= N || offset % std::ptrdiff_t(sizeof(x)) != 0)
      testing::fiber_scheduler::get().fail("a store to no group, or not aligned");
    else std::memcpy(testing::fiber_cluster::of(other) + offset, &x, sizeof(x));
  }
  std::uintptr_t address(std::uintptr_t own, int other) const {
    if (other < 0 || other >= N) testing::fiber_scheduler::get().fail("an address of no group");
    return own - reinterpret_cast<std::uintptr_t>(testing::fiber_cluster::of(rank())) +
           reinterpret_cast<std::uintptr_t>(testing::fiber_cluster::of(other));
  }
  template <int Words>
  void store(std::uintptr_t address, uint32 const (&words)[Words]) const {
    if (address % sizeof(words) != 0) testing::fiber_scheduler::get().fail("a store is not aligned");
    std::memcpy(reinterpret_cast<void*>(address), words, sizeof(words));
  }
};

}  // namespace tcnca
