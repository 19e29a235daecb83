// Approximate functions of a GPU for fp32. PTX ISA, section "Floating-Point Instructions: rcp, ex2".
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

#if defined(__CUDACC__)
/// 2^x to 2 units in the last place; 0 where the result is not a normal number. Called by any thread.
__device__ __forceinline__ float exp2_or_zero(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
/// 1 / x to 1 unit in the last place; 0 where the result is not a normal number. Called by any thread.
__device__ __forceinline__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#endif

}  // namespace tcnca::inline TCNCA_TARGET::detail
