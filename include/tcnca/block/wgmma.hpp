// Matrix products of a warpgroup (four warps) with operands in shared memory. Layouts: PTX ISA, "Asynchronous Warpgroup
// Level Matrix Shared Memory Layout", "Strides", "Matrix Descriptor Format"; CUTLASS documents them as canonical
// layouts of its descriptors (cute/atom/mma_traits_sm90_gmma.hpp).
#pragma once
#include "../arch/wgmma.hpp"
#include "agent.hpp"
#include "cluster.hpp"
#include "mma.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Matrices of 16-bit elements in shared memory, for c += a b with a 64 x 16, b 16 x N. A matrix is stored as panels of
/// 64 columns: the rows of a panel, 128 bytes each, follow one another, and 16-byte vectors are swizzled as in
/// swizzled_rows. This is the hardware's 128-byte swizzle, which XORs bits 4 to 6 of an address with bits 7 to 9; so a
/// panel begins at a multiple of 1024 bytes. Every 8 columns of the result are a fragment mma_fragment::c, in rows 16 w
/// to 16 w + 15 for warp w of the four.
struct wgmma_tile {
  static constexpr int rows = 64, depth = 16, threads = 128, line = swizzled_rows::line, line_bytes = 128,
                       alignment = 1024;
  /// Where element (row, column) of a matrix of `height` rows is, in elements.
  TCNCA_HOST_DEVICE static constexpr int offset(int height, int row, int column) {
    return (column / line * height + row) * line + swizzled_rows::offset(row, column % line / 8 * 8) + column % 8;
  }
  /// Bytes of a matrix of `height` rows (a multiple of 8) and up to `width` columns.
  TCNCA_HOST_DEVICE static constexpr int bytes(int height, int width) {
    return divide_up(width, line) * height * line_bytes;
  }

  /// Bits 0 to 13, 16 to 29, 32 to 45: address, leading and stride byte offset, divided by 16; bits 62, 63: 1, the
  /// 128-byte swizzle.
  TCNCA_HOST_DEVICE static constexpr uint64 descriptor(uint32 address, int leading, int stride) {
    return uint64((address & 0x3ffffu) >> 4) | uint64(leading >> 4) << 16 | uint64(stride >> 4) << 32 | uint64(1) << 62;
  }
  /// Descriptor of rows from `row` on (a multiple of 8; 64, or N) and the 16 columns from `column` on, which are summed
  /// over: a, or the transpose of b. The stride offset is from 8 rows to the next 8; the leading offset is not used.
  TCNCA_HOST_DEVICE static constexpr uint64 of_rows(uint32 matrix, int height, int row, int column) {
    return descriptor(matrix + uint32((column / line * height + row) * line_bytes + column % line * 2), 16,
                      8 * line_bytes);
  }
  /// Descriptor of the 16 rows from `row` on (a multiple of 8), which are summed over, and N columns: b. The leading
  /// offset is from panel to panel, the stride offset from 8 rows to the next 8.
  TCNCA_HOST_DEVICE static constexpr uint64 of_columns(uint32 matrix, int height, int row) {
    return descriptor(matrix + uint32(row * line_bytes), height * line_bytes, 8 * line_bytes);
  }
};

namespace detail {
/// Whether offset() is one-to-one, stays within the matrix, and agrees with the hardware's swizzle.
constexpr bool panels_are_swizzled() {
  constexpr int height = 16, width = 128;
  bool taken[height * width] = {};
  for (int row = 0; row < height; row++)
    for (int column = 0; column < width; column++) {
      int const at = wgmma_tile::offset(height, row, column),
                straight = ((column / 64 * height + row) * 64 + column % 64) * 2;
      if (at >= height * width || taken[at] || at * 2 != (straight ^ (straight >> 7 & 7) << 4)) return false;
      taken[at] = true;
    }
  return true;
}
static_assert(panels_are_swizzled());
static_assert(wgmma_tile::descriptor(0x400, 8192, 1024) == 0x4000004002000040);
}  // namespace detail

/// Operations of a warpgroup of a group, each called by all 128 threads. Specialized for groups that have warpgroups:
///   address(p)                           of a byte in shared memory, for descriptors
///   fence_proxy_async()                  makes a thread's writes to shared memory visible to products issued after the
///                                        next barrier
///   fence()                              before the first product, after other accesses to its result registers
///   multiply<T, AColumns, BRows>(c, a, b, add)
///                                        64 x 64, 128 or 256: c = a b, or c += a b if add. a by of_rows, or, if
///                                        AColumns, its transpose by of_columns; b by of_rows of its transpose, or, if
///                                        BRows, by of_columns
///   multiply_rows<T>(c, a, b, add)       the same for 64 x 64, a and b by of_rows
///   multiply_columns<T>(c, a, b)         64 x 256: c += a b; a by of_rows, b by of_columns
///   commit()                             makes one group of the products since the last call, possibly of none
///   wait_groups<N>()                     waits until at most N groups are pending. Before that, results must not be
///                                        accessed and operands must not be written
///   result(c)                            after that, before c is accessed: keeps the compiler from moving accesses up
///   wait(c)                              the three for all products, with the result c
template <class Group>
struct warpgroup_of {
  static constexpr bool exists = false;
};

#if defined(__CUDACC__)
template <int N>
struct warpgroup_of<block_group<N>> {
  static constexpr bool exists = N % wgmma_tile::threads == 0;

  __device__ __forceinline__ static uint32 address(void const* p) { return detail::shared_address(p); }
  __device__ __forceinline__ void fence_proxy_async() const { detail::fence_proxy_async(); }
  __device__ __forceinline__ void fence() const { detail::wgmma_fence(); }
  template <element T, bool AColumns, bool BRows, int Tiles>
  __device__ __forceinline__ void multiply(float (&c)[Tiles][4], uint64 a, uint64 b, bool add) const {
    static_assert(Tiles == 8 || Tiles == 16 || Tiles == 32);
    if constexpr (Tiles == 8) {
      detail::wgmma_64x64x16<T, AColumns, BRows>(c, a, b, add);
    } else if constexpr (Tiles == 16) {
      detail::wgmma_64x128x16<T, AColumns, BRows>(c, a, b, add);
    } else {
      detail::wgmma_64x256x16<T, AColumns, BRows>(c, a, b, add);
    }
  }
  template <element T>
  __device__ __forceinline__ void multiply_rows(float (&c)[8][4], uint64 a, uint64 b, bool add) const {
    multiply<T, false, false>(c, a, b, add);
  }
  template <element T>
  __device__ __forceinline__ void multiply_columns(float (&c)[32][4], uint64 a, uint64 b) const {
    multiply<T, false, true>(c, a, b, true);
  }
  __device__ __forceinline__ void commit() const { detail::wgmma_commit(); }
  template <int Pending>
  __device__ __forceinline__ void wait_groups() const {
    detail::wgmma_wait<Pending>();
  }
  template <int Tiles>
  __device__ __forceinline__ void result(float (&c)[Tiles][4]) const {
    detail::wgmma_result(c);
  }
  template <int Tiles>
  __device__ __forceinline__ void wait(float (&c)[Tiles][4]) const {
    commit();
    wait_groups<0>();
    result(c);
  }
};
#endif

}  // namespace tcnca
