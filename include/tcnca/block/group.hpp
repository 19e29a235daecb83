// Group: the threads that share a tile. Work is shared out as `for (i = group.rank(); i < n; i += group.size())` between sync()s.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// One CPU thread; the lanes of its SIMD registers do the work.
struct serial_group {
  TCNCA_HOST_DEVICE int rank() const { return 0; }
  TCNCA_HOST_DEVICE static constexpr int size() { return 1; }
  TCNCA_HOST_DEVICE void sync() const {}
};

/// f(row, column) for all of rows x columns, each by one thread of the group, neighbours in a row by neighbouring threads.
template <class Group, class F>
TCNCA_HOST_DEVICE void for_each_pair(Group group, int rows, int columns, F f) {
  if constexpr (Group::size() == 1) {  // no division
    for (int row = 0; row < rows; row++)
      for (int column = 0; column < columns; column++) f(row, column);
  } else {
    for (int i = group.rank(); i < rows * columns; i += group.size()) f(i / columns, i % columns);
  }
}

#if defined(__CUDACC__)
/// A CUDA thread block of N threads. Called by all of them.
template <int N>
struct block_group {
  __device__ __forceinline__ int rank() const { return static_cast<int>(threadIdx.x); }
  __host__ __device__ static constexpr int size() { return N; }
  __device__ __forceinline__ void sync() const { __syncthreads(); }
};
#endif

}  // namespace tcnca
