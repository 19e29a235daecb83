// Instructions of sm_90 for kernels that are launched before the kernel before them in the stream has completed
// (programmatic dependent launch). Nothing is emitted for older devices. PTX ISA, section "griddepcontrol".
#pragma once
#include "../core/config.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// Waits until the kernel before this one has completed; its stores are then visible. Returns at once in a kernel that
/// was launched after it had completed.
__device__ __forceinline__ void wait_for_previous_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
/// Once all blocks have called this or ended, blocks of the next kernel may start where there is room for them, if it
/// was launched so.
__device__ __forceinline__ void allow_next_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace tcnca::detail
#endif
