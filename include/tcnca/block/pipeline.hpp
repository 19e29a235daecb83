// Rings of buffers in shared memory between warps that fill them by asynchronous copies and warps that use them. Each
// buffer has two barriers (mbarrier): its phases say that it is full, and that it is empty.
#pragma once
#include "../arch/bulk_copy.hpp"
#include "../arch/mbarrier.hpp"
#include "group.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What a copy engine must know of a tensor: a CUtensorMap, made by launch/tensor_map.hpp. Part of a kernel's
/// parameters.
struct alignas(64) tensor_map {
  uint64 words[16];
};

/// A place in a ring. Those who fill and those who use its buffers advance places of their own.
struct ring_place {
  int buffer = 0;
  uint32 parity = 0;  // of how often the ring was passed

  /// The place `n` buffers, at most a whole ring, further.
  TCNCA_HOST_DEVICE constexpr ring_place after(int n, int buffers) const {
    int const next = buffer + n;
    return next < buffers ? ring_place{next, parity} : ring_place{next - buffers, parity ^ 1};
  }
};

#if defined(__CUDACC__)
/// The barriers of a ring. Threads that wait see what those who arrived did before.
struct ring_barriers {
  uint32 address;  // in shared memory, a multiple of 8
  int buffers;

  TCNCA_HOST_DEVICE static constexpr int bytes(int buffers) { return 16 * buffers; }
  __device__ __forceinline__ uint32 full(ring_place p) const { return address + 16 * uint32(p.buffer); }
  __device__ __forceinline__ uint32 empty(ring_place p) const { return full(p) + 8; }
  /// Called by one thread: how many arrivals make a buffer full, and empty.
  __device__ __forceinline__ void init(int when_full, int when_empty) const {
    for (int b = 0; b < buffers; b++) {
      detail::mbarrier_init(full({b}), when_full);
      detail::mbarrier_init(empty({b}), when_empty);
    }
  }
  __device__ __forceinline__ void wait_full(ring_place p) const { detail::mbarrier_wait(full(p), p.parity); }
  __device__ __forceinline__ void wait_empty(ring_place p) const { detail::mbarrier_wait(empty(p), p.parity ^ 1); }
  __device__ __forceinline__ void advance(ring_place& p, int n = 1) const { p = p.after(n, buffers); }
};
#endif

}  // namespace tcnca
