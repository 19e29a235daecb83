// Instructions of a cluster of thread blocks: its barrier, and stores to the shared memory of another block. sm_90 and
// up; where they are not used, nothing is emitted. PTX ISA, sections "barrier.cluster", "mapa", "st",
// "membar / fence" (fence.proxy.async).
#pragma once
#include "../core/config.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// The rank of this block in its cluster.
__device__ __forceinline__ int cluster_rank() {
  uint32 r;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
  return int(r);
}
/// The two halves of a barrier of all threads of the cluster. What any thread did before cluster_arrive is visible to
/// all threads after cluster_wait. A thread calls them alternately.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
/// A barrier of all threads of the cluster; orders their memory accesses.
__device__ __forceinline__ void cluster_sync() {
  asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
/// The shared::cluster address, in block `rank`, that corresponds to an address of this block's shared memory.
__device__ __forceinline__ uint32 cluster_address(uint32 own, int rank) {
  uint32 a;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(a) : "r"(own), "r"(rank));
  return a;
}
__device__ __forceinline__ void cluster_store(uint32 to, float x) {
  asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(to), "f"(x) : "memory");
}
__device__ __forceinline__ void cluster_store(uint32 to, uint32 const (&x)[1]) {
  asm volatile("st.shared::cluster.b32 [%0], %1;" ::"r"(to), "r"(x[0]) : "memory");
}
__device__ __forceinline__ void cluster_store(uint32 to, uint32 const (&x)[2]) {
  asm volatile("st.shared::cluster.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(x[0]), "r"(x[1]) : "memory");
}
__device__ __forceinline__ void cluster_store(uint32 to, uint32 const (&x)[4]) {
  asm volatile("st.shared::cluster.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
               : "memory");
}

/// Makes this thread's writes to the shared memory of all blocks of the cluster visible to products and copies of the
/// asynchronous proxy that are issued after a barrier.
__device__ __forceinline__ void fence_proxy_async_cluster() {
  asm volatile("fence.proxy.async.shared::cluster;" ::: "memory");
}

}  // namespace tcnca::detail
#endif
