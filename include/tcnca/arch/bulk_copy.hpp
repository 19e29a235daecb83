// Instructions of sm_90: asynchronous copies of tiles of tensors and of contiguous bytes, and asynchronous stores. They
// are reported to a barrier in shared memory (mbarrier) by the number of their bytes. Each is called by one thread. PTX
// ISA, sections "cp.async.bulk", "cp.async.bulk.tensor", "st.async". `barrier`, `to`, `from` are shared-memory
// addresses.
#pragma once
#include "../core/config.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// Begins the copy of the tile of a tensor at coordinates c to shared memory. Elements outside of the tensor are zeros;
/// their bytes count.
__device__ __forceinline__ void load_tensor_tile(uint32 to, void const* map, int const (&c)[4], uint32 barrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4, %5}], "
      "[%6];" ::"r"(to),
      "l"(map), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(barrier)
      : "memory");
}
/// The same to the blocks of the cluster whose bits in `blocks` are set: to the same address, and reported to the same
/// barrier, of each.
__device__ __forceinline__ void load_tensor_tile(uint32 to, void const* map, int const (&c)[4], uint32 barrier,
                                                 uint16 blocks) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
      "%3, %4, %5}], [%6], %7;" ::"r"(to),
      "l"(map), "r"(c[0]), "r"(c[1]), "r"(c[2]), "r"(c[3]), "r"(barrier), "h"(blocks)
      : "memory");
}
/// Begins the copy of `bytes` bytes (a multiple of 16) of this block's shared memory to a shared::cluster address;
/// `barrier` is one, too.
__device__ __forceinline__ void copy_to_cluster(uint32 to, uint32 from, int bytes, uint32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
               "r"(from), "r"(bytes), "r"(barrier)
               : "memory");
}
/// Begins the store of a float at a shared::cluster address; `barrier` is one, too.
__device__ __forceinline__ void store_to_cluster(uint32 to, float x, uint32 barrier) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to),
               "r"(__float_as_uint(x)), "r"(barrier)
               : "memory");
}

}  // namespace tcnca::detail
#endif
