// Copies from global to shared memory that go on while their thread does. sm_80 and up.
// PTX ISA, section "Data Movement and Conversion Instructions: Non-bulk copy" (cp.async).
#pragma once
#include "../core/config.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// 16 bytes, to an address in shared memory, both addresses aligned to them; zeros, and nothing is read, where not `present`. Past the L1 cache.
__device__ __forceinline__ void async_copy_16(uint32 to, void const* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(present ? 16 : 0) : "memory");
}
/// The same for 4 bytes.
__device__ __forceinline__ void async_copy_4(uint32 to, void const* from, bool present) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(to), "l"(from), "r"(present ? 4 : 0) : "memory");
}
/// The copies that this thread began since the last call are a group.
__device__ __forceinline__ void async_copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Until at most N groups of this thread are under way.
template <int N>
__device__ __forceinline__ void async_copy_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

}  // namespace tcnca::detail
#endif
