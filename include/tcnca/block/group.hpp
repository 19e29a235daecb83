// A group: the threads that process an item together. Work is distributed as
// `for (i = group.rank(); i < n; i += group.size())`, with sync() between dependent phases. All threads call sync().
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// One CPU thread. Parallelism within an item comes from its SIMD lanes.
struct serial_group {
  TCNCA_HOST_DEVICE int rank() const { return 0; }
  TCNCA_HOST_DEVICE static constexpr int size() { return 1; }
  TCNCA_HOST_DEVICE void sync() const {}
};

/// f(row, column) for all of rows x columns, each called by one thread. Consecutive columns belong to consecutive
/// threads.
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
/// A one-dimensional CUDA thread block of N threads.
template <int N>
struct block_group {
  __device__ __forceinline__ int rank() const { return static_cast<int>(threadIdx.x); }
  __host__ __device__ static constexpr int size() { return N; }
  __device__ __forceinline__ void sync() const { __syncthreads(); }
};
#endif

}  // namespace tcnca
