// Instructions of a CUDA warp: small matrix products, their operand loads from shared memory, exchange between lanes.
// sm_80 and up. Unless stated otherwise, a whole warp calls. PTX ISA, sections "Matrix multiply-accumulate operation
// using mma instruction" (m16n8k16), "ldmatrix", "shfl.sync", "vote.sync", "ex2".
#pragma once
#include "../core/config.hpp"
#include "../core/numeric.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// c += a b for a 16 x 16, b 16 x 8, c 16 x 8; registers of a and b hold two 16-bit elements.
template <element T>
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], uint32 const (&a)[4], uint32 b0, uint32 b1) {
  if constexpr (same<T, bf16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// The 32-bit address of a generic pointer to shared memory. Called by any thread.
__device__ __forceinline__ uint32 shared_address(void const* p) { return uint32(__cvta_generic_to_shared(p)); }

/// Loads four 8 x 8 matrices of 16-bit elements; lane 8 m + i passes the address of row i (16 bytes, aligned) of matrix
/// m.
__device__ __forceinline__ void load_matrices(uint32 (&r)[4], uint32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}
/// The same; each matrix is transposed.
__device__ __forceinline__ void load_matrices_transposed(uint32 (&r)[4], uint32 row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(row)
               : "memory");
}

/// x of the lane whose number is this lane's XOR mask.
__device__ __forceinline__ uint32 shuffle_xor(uint32 x, int mask) {
  uint32 y;
  asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 0x1f, 0xffffffff;" : "=r"(y) : "r"(x), "r"(mask));
  return y;
}
/// x of the first lane; tells the compiler that the result is warp-uniform.
__device__ __forceinline__ int first_lane(int x) { return __shfl_sync(0xffffffffu, x, 0); }
/// Whether x is true in any lane.
__device__ __forceinline__ bool any_lane(bool x) {
  uint32 y;
  asm volatile("{ .reg .pred p, q; setp.ne.u32 p, %1, 0; vote.sync.any.pred q, p, 0xffffffff; selp.u32 %0, 1, 0, q; }"
               : "=r"(y)
               : "r"(uint32(x)));
  return y != 0;
}

/// A barrier of the warp; orders the memory accesses of its lanes.
__device__ __forceinline__ void warp_sync() { __syncwarp(); }

/// Two floats rounded to T (to nearest even) in one register, `low` in the lower half. Called by any thread.
template <element T>
__device__ __forceinline__ uint32 narrow_pair(float low, float high) {
  uint32 y;
  if constexpr (same<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  }
  return y;
}

/// 2^x to 2 units in the last place; 0 where the result is not a normal number. Called by any thread.
__device__ __forceinline__ float exp2_or_zero(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace tcnca::detail
#endif
