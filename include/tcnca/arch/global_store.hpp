// Vector stores to global memory. PTX ISA, section "Data Movement and Conversion Instructions: st".
#pragma once
#include "../core/config.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// Stores 16 bytes to global memory; `to` is a multiple of 16. The compiler splits such a store if its words come from
/// inline assembly. Called by any thread.
__device__ __forceinline__ void store_global_16(void* to, uint32 const (&v)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(to)), "r"(v[0]), "r"(v[1]),
               "r"(v[2]), "r"(v[3])
               : "memory");
}

}  // namespace tcnca::detail
#endif
