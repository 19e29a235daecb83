// Operations of a cluster of groups: its barrier, and stores to the shared memory of another group.
#pragma once
#include "../arch/cluster.hpp"
#include "../arch/mma.hpp"
#include "group.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Operations of a cluster of N groups. Specialized for groups that can form clusters:
///   rank()                               the number of this group
///   sync()                               a barrier of all threads of all groups; orders their accesses to shared
///                                        memory. Before the first store to another group (it may not have started) and
///                                        after the last one (it may not end)
///   arrive(), wait()                     the two halves of sync: accesses before arrive happen before accesses after
///                                        wait. All threads call them alternately
///   fence_proxy_async()                  makes a thread's stores to other groups visible to products issued after the
///                                        next sync there, whose threads also call warpgroup_of::fence_proxy_async
///   store(p, rank, x)                    stores a float, or 16 bytes, in the shared memory of group `rank`, at the
///                                        place that p has in this one's
///   address(own, rank)                   the byte of group `rank` in the place of warp_of::address_type `own` in this
///                                        group; byte offsets may be added to it
///   store(address, words)                stores 1, 2 or 4 words at such an address, aligned to their size
template <class Group, int N>
struct cluster_of;

#if defined(__CUDACC__)
template <int Threads, int N>
struct cluster_of<block_group<Threads>, N> {
  __device__ __forceinline__ int rank() const { return detail::cluster_rank(); }
  __device__ __forceinline__ void sync() const { detail::cluster_sync(); }
  __device__ __forceinline__ void arrive() const { detail::cluster_arrive(); }
  __device__ __forceinline__ void wait() const { detail::cluster_wait(); }
  __device__ __forceinline__ void fence_proxy_async() const { detail::fence_proxy_async_cluster(); }
  template <class X>
  __device__ __forceinline__ void store(void* p, int rank, X const& x) const {
    detail::cluster_store(detail::cluster_address(detail::shared_address(p), rank), x);
  }
  __device__ __forceinline__ uint32 address(uint32 own, int rank) const { return detail::cluster_address(own, rank); }
  template <int Words>
  __device__ __forceinline__ void store(uint32 address, uint32 const (&words)[Words]) const {
    detail::cluster_store(address, words);
  }
};
#endif

}  // namespace tcnca
