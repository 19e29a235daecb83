// A value that the compiler knows nothing about.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Returns x. On a GPU the compiler computes what depends on it each time: it does not move it out of a loop and keep
/// the results in registers.
TCNCA_HOST_DEVICE index_t opaque(index_t x) {
#if defined(__CUDA_ARCH__)
  asm volatile("" : "+l"(x));
#endif
  return x;
}

}  // namespace tcnca::detail
