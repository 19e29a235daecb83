// The contract between an algorithm and the code that launches it.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Bytes of memory that one group of an agent needs.
struct group_memory {
  /// CUDA: dynamic shared memory. CPU: the first part of the thread's slice of the workspace.
  size_t shared_memory_bytes = 0;
  /// In the workspace.
  size_t global_scratch_bytes = 0;
};

/// The items first, first + stride, ... below end.
struct item_range {
  index_t first = 0, end = 0, stride = 1;

  TCNCA_HOST_DEVICE constexpr index_t count() const { return first < end ? (end - first + stride - 1) / stride : 0; }
  /// The n-th item.
  TCNCA_HOST_DEVICE constexpr index_t operator[](index_t n) const { return first + n * stride; }
};

/// An agent is the algorithm of one work item, executed by one group of threads. The same source runs on a CUDA thread
/// block (block_group), on one CPU thread (serial_group) and on fibers in tests. A launch gives each group one agent;
/// the agent processes items one after another.
///
///   group_type    the threads that share an item: rank(), static size(), sync()
///   params_type   what all groups are given; trivially copyable, passed to a kernel by value
///   A             element type of the group's memory
///   items(p)      number of work items; 0 if an extent is 0
///   memory(p)     memory of one group; must not depend on pointers or strides
///   constructor   (group, params, shared, scratch): `shared` and `scratch` point to memory(p) bytes, aligned to 64
///                 bytes or more and uninitialized. The parameters outlive the agent. On the host it is constructed
///                 before the first item is taken, on a GPU by all threads of the group.
///   agent(item)   called by all threads of the group, for items in any order. Ends in a state where the memory may be
///                 reused: either with group.sync() or because no thread reads what another one wrote.
///
/// Optional members: `cluster_size`, see `clustered`; `persistent`, see `persistent`; and
///   static constexpr int blocks_per_multiprocessor
///                 thread blocks that a multiprocessor must be able to hold at the same time, by registers
template <class Agent>
concept agent = requires(typename Agent::group_type group, typename Agent::params_type const& params,
                         typename Agent::A* memory, Agent& work, index_t item) {
  requires __is_trivially_copyable(typename Agent::params_type);
  requires same<decltype(Agent::items(params)), index_t>;
  requires same<decltype(Agent::memory(params)), group_memory>;
  Agent(group, params, memory, memory);
  requires requires { work(item); } || requires {
    work(item_range{});
  };
};

/// An agent that processes all items of a group in one call: agent(item_range), so that the end of one item can overlap
/// the beginning of the next. A launch creates as many groups as the device can hold at the same time.
template <class Agent>
concept persistent = requires {
  requires Agent::persistent;
};

/// An agent whose items are each processed by a cluster of Agent::cluster_size, or cluster_size(params), groups. sm_90a
/// only.
template <class Agent>
concept clustered = requires {
  Agent::cluster_size;
};
template <class Agent>
concept clustered_by_params = requires(typename Agent::params_type const& params) {
  Agent::cluster_size(params);
};

}  // namespace tcnca
