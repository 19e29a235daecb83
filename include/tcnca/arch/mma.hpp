// Instructions of a CUDA warp: small matrix products, their operand loads from shared memory, exchange between lanes.
// sm_80 and up. Unless stated otherwise, a whole warp calls. PTX ISA, sections "Matrix multiply-accumulate operation
// using mma instruction" (m16n8k16), "ldmatrix", "shfl.sync", "vote.sync", "ex2".
#pragma once
#include "../core/config.hpp"
#include "../core/numeric.hpp"
#include "approximate.hpp"
#include "convert.hpp"

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

/// d = c + a b for a 16 x 16, b 16 x 8. Not volatile: a product without a use is removed.
template <element T>
__device__ __forceinline__ void mma_16x8x16(float (&d)[4], float const (&c)[4], uint32 a0, uint32 a1, uint32 a2,
                                            uint32 a3, uint32 b0, uint32 b1) {
  if constexpr (same<T, bf16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, "
        "%12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, "
        "%12, %13};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  }
}
/// d = c + a b for a 16 x 8, b 8 x 8.
template <element T>
__device__ __forceinline__ void mma_16x8x8(float (&d)[4], float const (&c)[4], uint32 a0, uint32 a1, uint32 b0) {
  if constexpr (same<T, bf16>) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
  } else {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
        : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
        : "r"(a0), "r"(a1), "r"(b0), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
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

/// Two matrices, transposed or not; lanes 0 to 15 pass the addresses of their rows.
template <bool Transposed>
__device__ __forceinline__ void load_two_matrices(uint32& r0, uint32& r1, uint32 row) {
  if constexpr (Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r0), "=r"(r1)
                 : "r"(row)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(r0), "=r"(r1) : "r"(row) : "memory");
  }
}
/// Stores four 8 x 8 matrices, transposed or not; lane 8 m + i passes the address of row i (16 bytes, aligned) of
/// matrix m. sm_90 and up; below, no code is generated.
template <bool Transposed>
__device__ __forceinline__ void store_matrices(uint32 row, uint32 const (&r)[4]) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if constexpr (Transposed) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]),
                 "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
  } else {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(row), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
  }
#endif
}
/// An 8 x 8 matrix in registers, transposed.
__device__ __forceinline__ uint32 transpose_matrix(uint32 x) {
  uint32 y;
  asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}

/// All ones in each 16-bit half of x that is a positive number of bf16 or fp16; x has no negative ones. Called by any
/// thread.
__device__ __forceinline__ uint32 positive_halves(uint32 x) {
  uint32 y;
  asm("prmt.b32 %0, %1, 0, 0xbb99;" : "=r"(y) : "r"(x + 0x7fff7fffu));
  return y;
}

/// Loads N words (1, 2 or 4) at a shared-memory address aligned to them. Called by any thread.
template <int N>
__device__ __forceinline__ void load_shared(uint32 (&v)[N], uint32 from) {
  static_assert(N == 1 || N == 2 || N == 4);
  if constexpr (N == 1) {
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(v[0]) : "r"(from) : "memory");
  } else if constexpr (N == 2) {
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v[0]), "=r"(v[1]) : "r"(from) : "memory");
  } else {
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v[0]), "=r"(v[1]), "=r"(v[2]), "=r"(v[3])
                 : "r"(from)
                 : "memory");
  }
}
/// Stores N words.
template <int N>
__device__ __forceinline__ void store_shared(uint32 to, uint32 const (&v)[N]) {
  static_assert(N == 1 || N == 2 || N == 4);
  if constexpr (N == 1) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(v[0]) : "memory");
  } else if constexpr (N == 2) {
    asm volatile("st.shared.v2.b32 [%0], {%1, %2};" ::"r"(to), "r"(v[0]), "r"(v[1]) : "memory");
  } else {
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v[0]), "r"(v[1]), "r"(v[2]), "r"(v[3])
                 : "memory");
  }
}
/// Loads or stores 16 bits.
__device__ __forceinline__ uint16 load_shared_16(uint32 from) {
  uint16 v;
  asm volatile("ld.shared.b16 %0, [%1];" : "=h"(v) : "r"(from) : "memory");
  return v;
}
__device__ __forceinline__ void store_shared_16(uint32 to, uint16 v) {
  asm volatile("st.shared.b16 [%0], %1;" ::"r"(to), "h"(v) : "memory");
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

/// narrow_pair after max(x, 0): the rounded relu of both.
template <element T>
__device__ __forceinline__ uint32 narrow_pair_relu(float low, float high) {
  uint32 y;
  if constexpr (same<T, bf16>) {
    asm("cvt.rn.relu.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.relu.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  }
  return y;
}

}  // namespace tcnca::detail
#endif
