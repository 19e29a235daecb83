// Asynchronous copies from global to shared memory. sm_80 and up.
// PTX ISA, section "Data Movement and Conversion Instructions: Non-bulk copy" (cp.async).
#pragma once
#include "../core/config.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// Copies 16 bytes to a shared-memory address, bypassing L1; both addresses are multiples of 16. If not `present`,
/// writes zeros and reads nothing.
__device__ __forceinline__ void async_copy_16(uint32 to, void const* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(present ? 16 : 0) : "memory");
}
/// The same for 4 bytes, through L1.
__device__ __forceinline__ void async_copy_4(uint32 to, void const* from, bool present) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(present ? 4 : 0) : "memory");
}
/// Makes one group of this thread's copies since the last call.
__device__ __forceinline__ void async_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most N groups of this thread are pending.
template <int N>
__device__ __forceinline__ void async_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace tcnca::detail
#endif
