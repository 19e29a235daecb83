// Instructions of sm_90 for barriers in shared memory, and what goes with them: named barriers of a part of a block,
// and registers given from one warpgroup to another. PTX ISA, sections "mbarrier", "barrier", "setmaxnreg". Barriers
// are named by their shared-memory address.
#pragma once
#include "../core/config.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// Makes a barrier whose phases are complete after `count` arrivals. Called by one thread.
__device__ __forceinline__ void mbarrier_init(uint32 barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
/// After the barriers are made, before a barrier of the cluster: the other blocks and asynchronous copies see them.
__device__ __forceinline__ void mbarrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void mbarrier_arrive(uint32 barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// The same at a shared::cluster address. Says that this thread's reads are done; its stores to other blocks are not
/// ordered, because that takes a fence of the whole device (".release.cluster").
__device__ __forceinline__ void mbarrier_arrive_cluster(uint32 barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Arrives, and adds `bytes` of asynchronous stores or copies that the phase waits for.
__device__ __forceinline__ void mbarrier_arrive_expect(uint32 barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// Waits until the phase with this parity is complete. The parity of the first phase is 0; the phase before it counts
/// as complete.
__device__ __forceinline__ void mbarrier_wait(uint32 barrier, uint32 parity) {
  asm volatile(
      "{ .reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
/// A barrier of `threads` threads (whole warps) of the block. Barrier 0 is that of the block.
__device__ __forceinline__ void named_barrier(int name, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(name), "r"(threads) : "memory");
}

/// Sets the registers per thread of the calling warpgroup to fewer, or more: those that others have given up. Called by
/// all of its threads; a multiple of 8. sm_90a only.
template <int Registers>
__device__ __forceinline__ void release_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void acquire_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

}  // namespace tcnca::detail
#endif
