// Products of matrices by a warpgroup (four warps) from fast memory, and the groups of a cluster: layouts and operations.
// Layouts: PTX ISA, "Asynchronous Warpgroup Level Matrix Shared Memory Layout", "Strides", "Matrix Descriptor Format"; CUTLASS writes them
// down as the canonical layouts of its descriptors (cute/atom/mma_traits_sm90_gmma.hpp).
#pragma once
#include "../arch/wgmma.hpp"
#include "agent.hpp"
#include "mma.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Matrices of 16-bit elements in fast memory, for c += a b with a 64 x 16, b 16 x N. A matrix is stored as panels of 64 columns: of each row
/// 128 bytes, one row after another, with the pieces of 16 bytes exchanged as in swizzled_rows (the hardware's 128-byte swizzle: bits 4 to 6
/// of an address are exchanged by bits 7 to 9, so that a panel begins on 1024 bytes). The result's fragment is that of mma_fragment::c for
/// every 8 columns, with rows 16 w + c for the warp w of the four.
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

  /// Bits 0 to 13, 16 to 29, 32 to 45: address, leading and stride offset, in 16 bytes; bits 62, 63: 1 for the 128-byte swizzle.
  TCNCA_HOST_DEVICE static constexpr uint64 descriptor(uint32 address, int leading, int stride) {
    return uint64((address & 0x3ffffu) >> 4) | uint64(leading >> 4) << 16 | uint64(stride >> 4) << 32 | uint64(1) << 62;
  }
  /// Of 64 rows, or N, from `row` on (a multiple of 8), and 16 columns from `column` on, which are summed over: a, or b's transpose. The
  /// stride is that between 8 rows; the leading offset is not used.
  TCNCA_HOST_DEVICE static constexpr uint64 of_rows(uint32 matrix, int height, int row, int column) {
    return descriptor(matrix + uint32((column / line * height + row) * line_bytes + column % line * 2), 16,
                      8 * line_bytes);
  }
  /// Of 16 rows from `row` on (a multiple of 8), which are summed over, and N columns: b. Leading: between panels, stride: between 8 rows.
  TCNCA_HOST_DEVICE static constexpr uint64 of_columns(uint32 matrix, int height, int row) {
    return descriptor(matrix + uint32(row * line_bytes), height * line_bytes, 8 * line_bytes);
  }
};

namespace detail {
/// Whether a matrix's elements have places of their own, all below its size, and those that the hardware's swizzle gives them.
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

/// What a warpgroup of a group does together (all 128 threads call). A group that has warpgroups specialises it:
///   place(p)                             of a byte in fast memory, for descriptors
///   publish()                            a thread's writes to fast memory, before a barrier after which a product reads them
///   begin()                              products follow; their results were last written by this thread
///   multiply_rows<T>(c, a, b, add)       64 x 64: c = a b, or c += a b if add; a and b of_rows
///   multiply_columns<T>(c, a, b)         64 x 256: c += a b; b of_columns
///   end(c)                               until the products have ended. Until then c and the memory are not to be touched
template <class Group>
struct warpgroup_of {
  static constexpr bool exists = false;
};

/// What the N groups of a cluster do together. Specialised as above:
///   rank()                               the group's number
///   sync()                               called by all threads of all groups: what was written before is seen after
///   publish()                            a thread's stores, before a sync after which a product reads them (which calls warpgroup_of::publish)
///   store(p, rank, x)                    writes a float, or 16 bytes, where p, in this group's fast memory, has its like in that of `rank`
template <class Group, int N>
struct cluster_of;

#if defined(__CUDACC__)
template <int N>
struct warpgroup_of<block_group<N>> {
  static constexpr bool exists = N % wgmma_tile::threads == 0;

  __device__ __forceinline__ static uint32 place(void const* p) { return detail::shared_address(p); }
  __device__ __forceinline__ void publish() const { detail::fence_proxy_async(); }
  __device__ __forceinline__ void begin() const { detail::wgmma_fence(); }
  template <element T>
  __device__ __forceinline__ void multiply_rows(float (&c)[8][4], uint64 a, uint64 b, bool add) const {
    detail::wgmma_64x64x16<T>(c, a, b, add);
  }
  template <element T>
  __device__ __forceinline__ void multiply_columns(float (&c)[32][4], uint64 a, uint64 b) const {
    detail::wgmma_64x256x16<T>(c, a, b, true);
  }
  template <int Tiles>
  __device__ __forceinline__ void end(float (&c)[Tiles][4]) const {
    detail::wgmma_commit();
    detail::wgmma_wait<0>();
    detail::wgmma_result(c);
  }
};

template <int Threads, int N>
struct cluster_of<block_group<Threads>, N> {
  __device__ __forceinline__ int rank() const { return detail::cluster_rank(); }
  __device__ __forceinline__ void sync() const { detail::cluster_sync(); }
  __device__ __forceinline__ void publish() const { detail::fence_proxy_async_cluster(); }
  template <class X>
  __device__ __forceinline__ void store(void* p, int rank, X const& x) const {
    detail::cluster_store(detail::cluster_address(detail::shared_address(p), rank), x);
  }
};
#endif

}  // namespace tcnca
