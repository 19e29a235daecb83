// Matrix products of a warp: which lane holds which element, the layout of rows in shared memory, and the operations of
// a warp. Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix".
#pragma once
#include "../arch/async_copy.hpp"
#include "../arch/mma.hpp"
#include "group.hpp"
#include "pack.hpp"

namespace tcnca::inline TCNCA_TARGET {

inline constexpr int warp_size = 32;

/// The position of an element in a tile.
struct tile_position {
  int row, column;
  friend constexpr bool operator==(tile_position const&, tile_position const&) = default;
};

/// Fragments of c += a b: a 16 x 16, four registers of two elements; b 16 x 8, two registers of two elements; c 16 x 8,
/// four floats. The second element of a register of a is one column to the right, of b one row down.
struct mma_fragment {
  static constexpr int rows = 16, depth = 16, columns = 8;
  /// Position of the first element of register r.
  TCNCA_HOST_DEVICE static constexpr tile_position a(int lane, int r) {
    return {lane / 4 + r % 2 * 8, lane % 4 * 2 + r / 2 * 8};
  }
  TCNCA_HOST_DEVICE static constexpr tile_position b(int lane, int r) { return {lane % 4 * 2 + r * 8, lane / 4}; }
  /// Position of float i.
  TCNCA_HOST_DEVICE static constexpr tile_position c(int lane, int i) {
    return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2};
  }
};

/// Which row of 8 elements a lane passes to ldmatrix (four 8 x 8 matrices) so that the registers are a fragment.
/// Positions in the tile in memory.
struct mma_load {
  /// Fragment a, from rows of a: registers 0 to 3.
  TCNCA_HOST_DEVICE static constexpr tile_position a(int lane) { return {lane % 16, lane / 16 * 8}; }
  /// Fragments b of two neighbouring tiles of c, from 16 rows of b's transpose (keys): registers 0, 1 of the first
  /// tile, 2, 3 of the second.
  TCNCA_HOST_DEVICE static constexpr tile_position b_of_columns(int lane) {
    return {lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8};
  }
  /// The same from 16 rows of b (values), by the load that transposes.
  TCNCA_HOST_DEVICE static constexpr tile_position b_of_rows(int lane) { return {lane % 16, lane / 16 * 8}; }
};

/// Rows of 16-bit elements in shared memory; the row length is a multiple of 64 elements (128 bytes, all banks). Within
/// each 128 bytes, the index of a 16-byte vector is XORed with the row number mod 8. Then neither the same vector of
/// eight rows nor the eight vectors of a row conflict.
struct swizzled_rows {
  static constexpr int vector_elements = 8, line = 64;  // elements of a 16-byte vector, of 128 bytes
  /// Where column `column` (a multiple of 8) of a row is, in elements from the beginning of the row.
  TCNCA_HOST_DEVICE static constexpr int offset(int row, int column) { return column ^ row % 8 * vector_elements; }
  /// Which of the eight 16-byte groups of banks that vector is in.
  TCNCA_HOST_DEVICE static constexpr int bank(int row, int column) { return offset(row, column) / vector_elements % 8; }
};

namespace detail {
/// Whether the eight rows of one phase of ldmatrix, and the eight neighbouring vectors of one phase of a copy, are in
/// different banks.
constexpr bool swizzle_is_free_of_conflicts() {
  for (int first = 0; first < 16; first += 8)
    for (int column = 0; column < 256; column += swizzled_rows::vector_elements) {
      int banks = 0;
      for (int i = 0; i < 8; i++) banks |= 1 << swizzled_rows::bank(first + i, column);
      if (banks != 255) return false;
    }
  for (int row = 0; row < 16; row++)
    for (int line = 0; line < 256; line += swizzled_rows::line) {
      int banks = 0;
      for (int i = 0; i < 8; i++) banks |= 1 << swizzled_rows::bank(row, line + i * swizzled_rows::vector_elements);
      if (banks != 255) return false;
    }
  return true;
}
static_assert(swizzle_is_free_of_conflicts());
}  // namespace detail

/// Operations of a warp of a group, each called by all lanes, and the asynchronous copies of a thread. Specialized for
/// groups that have warps:
///   multiply<T>(c, a, b0, b1)                       c += a b, fragments as above
///   multiply<T>(d, c, a0, a1, a2, a3, b0, b1)       d = c + a b; d and c may be the same
///   multiply<T>(d, c, a0, a1, b0)                   the same with the first 8 columns of a and rows of b
///   address_type, address(p)                        an integer for a byte in shared memory, for the following
///                                                   operations; byte offsets may be added to it
///   load_matrices(r, row),
///   load_matrices_transposed(r, row)                ldmatrix: four 8 x 8 matrices from the rows that the lanes pass
///   load_two_matrices(r0, r1, row),
///   load_two_matrices_transposed(r0, r1, row)       two, from the rows that lanes 0 to 15 pass
///   stores_matrices                                 whether there are (sm_90)
///   store_matrices(row, r),
///   store_matrices_transposed(row, r)               stmatrix: four matrices to the rows that the lanes pass
///   transpose_matrix(x)                             movmatrix: an 8 x 8 matrix in registers
///   load_shared(v, address), store_shared(address, v)
///                                                   1, 2 or 4 words v of this thread, aligned to their size
///   load_shared_16(address), store_shared_16(address, x)
///   shuffle_xor(x, mask)                            x of the lane whose number is this lane's XOR mask
///   any(x)                                          whether x is true in any lane
///   uniform(x)                                      x, which must be equal in all lanes, as a warp-uniform value
///   sync()                                          a barrier of the warp; orders the lanes' memory accesses
///   copy_16, copy_4(to, from, present)              cp.async: 16 or 4 bytes from global to shared memory; zeros if not
///                                                   present
///   commit(), wait<N>()                             ends a group of copies; waits until at most the newest N (default
///                                                   0) of this thread's groups are pending. Other threads see the data
///                                                   after the next barrier of the group
template <class Group>
struct warp_of {
  static constexpr bool exists = false;
};

#if defined(__CUDACC__)
template <int N>
struct warp_of<block_group<N>> {
  static constexpr bool exists = N % warp_size == 0;
  block_group<N> group;

  template <element T>
  __device__ __forceinline__ void multiply(float (&c)[4], uint32 const (&a)[4], uint32 b0, uint32 b1) const {
    detail::mma_16x8x16<T>(c, a, b0, b1);
  }
  template <element T>
  __device__ __forceinline__ void multiply(float (&d)[4], float const (&c)[4], uint32 a0, uint32 a1, uint32 a2,
                                           uint32 a3, uint32 b0, uint32 b1) const {
    detail::mma_16x8x16<T>(d, c, a0, a1, a2, a3, b0, b1);
  }
  template <element T>
  __device__ __forceinline__ void multiply(float (&d)[4], float const (&c)[4], uint32 a0, uint32 a1, uint32 b0) const {
    detail::mma_16x8x8<T>(d, c, a0, a1, b0);
  }
  using address_type = uint32;
  __device__ __forceinline__ static address_type address(void const* p) { return detail::shared_address(p); }
  __device__ __forceinline__ void load_matrices(uint32 (&r)[4], uint32 row) const { detail::load_matrices(r, row); }
  __device__ __forceinline__ void load_matrices_transposed(uint32 (&r)[4], uint32 row) const {
    detail::load_matrices_transposed(r, row);
  }
  __device__ __forceinline__ void load_two_matrices(uint32& r0, uint32& r1, uint32 row) const {
    detail::load_two_matrices<false>(r0, r1, row);
  }
  __device__ __forceinline__ void load_two_matrices_transposed(uint32& r0, uint32& r1, uint32 row) const {
    detail::load_two_matrices<true>(r0, r1, row);
  }
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
  static constexpr bool stores_matrices = false;
#else
  static constexpr bool stores_matrices = true;
#endif
  __device__ __forceinline__ void store_matrices(uint32 row, uint32 const (&r)[4]) const {
    detail::store_matrices<false>(row, r);
  }
  __device__ __forceinline__ void store_matrices_transposed(uint32 row, uint32 const (&r)[4]) const {
    detail::store_matrices<true>(row, r);
  }
  __device__ __forceinline__ uint32 transpose_matrix(uint32 x) const { return detail::transpose_matrix(x); }
  template <int Words>
  __device__ __forceinline__ void load_shared(uint32 (&v)[Words], uint32 from) const {
    detail::load_shared(v, from);
  }
  template <int Words>
  __device__ __forceinline__ void store_shared(uint32 to, uint32 const (&v)[Words]) const {
    detail::store_shared(to, v);
  }
  __device__ __forceinline__ uint16 load_shared_16(uint32 from) const { return detail::load_shared_16(from); }
  __device__ __forceinline__ void store_shared_16(uint32 to, uint16 v) const { detail::store_shared_16(to, v); }
  __device__ __forceinline__ uint32 shuffle_xor(uint32 x, int mask) const { return detail::shuffle_xor(x, mask); }
  __device__ __forceinline__ float shuffle_xor(float x, int mask) const {
    return __uint_as_float(detail::shuffle_xor(__float_as_uint(x), mask));
  }
  __device__ __forceinline__ bool any(bool x) const { return detail::any_lane(x); }
  __device__ __forceinline__ int uniform(int x) const { return detail::first_lane(x); }
  __device__ __forceinline__ void sync() const { detail::warp_sync(); }
  __device__ __forceinline__ void copy_16(uint32 to, void const* from, bool present) const {
    detail::async_copy_16(to, from, present);
  }
  __device__ __forceinline__ void copy_4(uint32 to, void const* from, bool present) const {
    detail::async_copy_4(to, from, present);
  }
  __device__ __forceinline__ void commit() const { detail::async_copy_commit(); }
  template <int Pending = 0>
  __device__ __forceinline__ void wait() const {
    detail::async_copy_wait<Pending>();
  }
};
#endif

/// Two floats rounded to T in one register, `low` in the lower half.
template <element T>
TCNCA_HOST_DEVICE uint32 element_pair(float low, float high) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return detail::narrow_pair<T>(low, high);
#else
  return detail::narrow_bits<T, uint32, float>(low) | detail::narrow_bits<T, uint32, float>(high) << 16;
#endif
}
/// The same after max(x, 0).
template <element T>
TCNCA_HOST_DEVICE uint32 element_pair_relu(float low, float high) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return detail::narrow_pair_relu<T>(low, high);
#else
  return element_pair<T>(low > 0 ? low : low != low ? low : 0.f, high > 0 ? high : high != high ? high : 0.f);
#endif
}
/// Element `index` (0: the lower half) of a register of two.
template <element T>
TCNCA_HOST_DEVICE float element_of_pair(uint32 pair, int index) {
  return to_accumulate(T{uint16(pair >> (16 * index))});
}

}  // namespace tcnca
