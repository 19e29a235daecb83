// The scan of scan.hpp over the threads of a CUDA block, by CUB. A file of its own because CUB costs many seconds of
// compile time.
#pragma once
#include <cub/block/block_scan.cuh>

#include "scan.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// As group_scan, for a CUDA block.
struct cub_scan {
  template <class V, int Threads>
  static constexpr size_t bytes = sizeof(typename cub::BlockScan<affine_map<V>, Threads>::TempStorage);

  template <class V, class Group>
  __device__ __forceinline__ static affine_map<V> exclusive(Group, void* shared_memory, affine_map<V> map) {
    using scan = cub::BlockScan<affine_map<V>, Group::size()>;
    affine_map<V> before;
    scan(*static_cast<typename scan::TempStorage*>(shared_memory))
        .ExclusiveScan(map, before, affine_map<V>::identity(),
                       [](affine_map<V> a, affine_map<V> b) { return then(a, b); });
    return before;
  }
};

}  // namespace tcnca
