// The scan of scan.hpp over the threads of a CUDA block, by CUB. Only what runs it includes it: CUB costs many seconds of compile time.
#pragma once
#include <cub/block/block_scan.cuh>

#include "scan.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A scan over the threads of a CUDA block.
struct cub_scan {
  template <class V, int Threads>
  static constexpr size_t bytes = sizeof(typename cub::BlockScan<decaying<V>, Threads>::TempStorage);

  template <class V, class Group>
  __device__ __forceinline__ static decaying<V> exclusive(Group, void* shared_memory, decaying<V> mine) {
    using scan = cub::BlockScan<decaying<V>, Group::size()>;
    decaying<V> before;
    scan(*static_cast<typename scan::TempStorage*>(shared_memory))
        .ExclusiveScan(mine, before, decaying<V>::identity(), [](decaying<V> a, decaying<V> b) { return then(a, b); });
    return before;
  }
};

}  // namespace tcnca
