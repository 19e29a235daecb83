// Products of small matrices by a warp: which lane holds what, where rows lie in fast memory, and the operations that the lanes do together.
// Layouts: PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type" and "ldmatrix".
#pragma once
#include "../arch/async_copy.hpp"
#include "../arch/mma.hpp"
#include "group.hpp"
#include "pack.hpp"

namespace tcnca::inline TCNCA_TARGET {

inline constexpr int warp_size = 32;

/// Where a lane finds its part of a tile.
struct tile_position {
  int row, column;
  friend constexpr bool operator==(tile_position const&, tile_position const&) = default;
};

/// The fragments of c += a b: a 16 x 16, two elements a register, four registers; b 16 x 8, two registers; c 16 x 8, four floats.
/// A lane's number is 4 g + t. The second element of a register of a is one column to the right, of b one row down.
struct mma_fragment {
  static constexpr int rows = 16, depth = 16, columns = 8;
  TCNCA_HOST_DEVICE static constexpr tile_position a(int lane, int r) {
    return {lane / 4 + r % 2 * 8, lane % 4 * 2 + r / 2 * 8};
  }
  TCNCA_HOST_DEVICE static constexpr tile_position b(int lane, int r) { return {lane % 4 * 2 + r * 8, lane / 4}; }
  TCNCA_HOST_DEVICE static constexpr tile_position c(int lane, int i) {
    return {lane / 4 + i / 2 * 8, lane % 4 * 2 + i % 2};
  }
};

/// Which row of 8 elements a lane names to a load of four 8 x 8 matrices, so that its registers are a fragment. Positions in the tile in memory.
struct mma_load {
  /// Of a, from rows of a: registers 0 to 3.
  TCNCA_HOST_DEVICE static constexpr tile_position a(int lane) { return {lane % 16, lane / 16 * 8}; }
  /// Of b for two neighbouring tiles of c, from 16 rows of b's transpose (keys, say): registers 0, 1 are the first's, 2, 3 the second's.
  TCNCA_HOST_DEVICE static constexpr tile_position b_of_columns(int lane) {
    return {lane % 8 + lane / 16 * 8, lane / 8 % 2 * 8};
  }
  /// The same from 16 rows of b itself (values, say), by a load that transposes.
  TCNCA_HOST_DEVICE static constexpr tile_position b_of_rows(int lane) { return {lane % 16, lane / 16 * 8}; }
};

/// Rows of 16-bit elements in fast memory, as long as a multiple of 64 elements (128 bytes, all banks). The eight 16-byte pieces of each 128
/// bytes are exchanged by the row's number: then the same vector_elements of eight rows, and the eight pieces of a row, lie in different banks.
struct swizzled_rows {
  static constexpr int vector_elements = 8, line = 64;  // elements
  /// Where column `column` (a multiple of 8) of a row is, in elements from the beginning of the row.
  TCNCA_HOST_DEVICE static constexpr int offset(int row, int column) { return column ^ row % 8 * vector_elements; }
  /// The 16-byte bank, of 8, of a vector_elements.
  TCNCA_HOST_DEVICE static constexpr int bank(int row, int column) { return offset(row, column) / vector_elements % 8; }
};

namespace detail {
/// Whether eight rows of 16 bytes that one step of ldmatrix reads, and eight neighbours that one step of a copy writes, meet in no bank.
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

/// What the lanes of a warp of a group do together (all of them call), and the asynchronous copies of a thread. A group that has warps
/// specialises it:
///   multiply<T>(c, a, b0, b1)                 c += a b, fragments as above
///   place(p)                                  of a byte in fast memory: what the following take, and what bytes may be added to
///   load(r, row), load_transposed(r, row)     four 8 x 8 matrices from rows in fast memory
///   exchange(x, mask)                         the value of the lane whose number differs in the bits of mask
///   sync()                                    what the lanes wrote before is seen after
///   any(x)                                    whether x holds in any lane
///   uniform(x)                                x, which all lanes have
///   sync()                                    waits for the lanes, which then see what each other wrote
///   copy_16, copy_4(to, from, present)        fast memory from global memory; zeros where not present
///   commit(), wait()                          ends the copies begun since; until all have arrived (others see them after the group's sync)
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
  __device__ __forceinline__ static uint32 place(void const* p) { return detail::shared_address(p); }
  __device__ __forceinline__ void load(uint32 (&r)[4], uint32 row) const { detail::load_matrices(r, row); }
  __device__ __forceinline__ void load_transposed(uint32 (&r)[4], uint32 row) const {
    detail::load_matrices_transposed(r, row);
  }
  __device__ __forceinline__ uint32 exchange(uint32 x, int mask) const { return detail::shuffle_xor(x, mask); }
  __device__ __forceinline__ float exchange(float x, int mask) const {
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
  __device__ __forceinline__ void wait() const { detail::async_copy_wait<0>(); }
};
#endif

/// Two floats as elements in one register, `low` in the lower half.
template <element T>
TCNCA_HOST_DEVICE uint32 element_pair(float low, float high) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return detail::narrow_pair<T>(low, high);
#else
  return detail::narrow_bits<T, uint32, float>(low) | detail::narrow_bits<T, uint32, float>(high) << 16;
#endif
}
/// The first, or the second, of two elements in one register.
template <element T>
TCNCA_HOST_DEVICE float element_of_pair(uint32 pair, int which) {
  return to_accumulate(T{uint16(pair >> (16 * which))});
}

/// 2^x; 0 where that is no normal number. On a GPU to 2 units in the last place.
TCNCA_HOST_DEVICE float exp2_or_zero(float x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return detail::exp2_or_zero(x);
#else
  return x < -126.f ? 0.f : __builtin_exp2f(x);
#endif
}

}  // namespace tcnca
