// The 64-bit product of two 32-bit numbers. PTX ISA, section "Integer Arithmetic Instructions: mul".
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

struct uint32_pair {
  uint32 low, high;
};
/// On a GPU one instruction: nvcc 13 adds a zero to the upper half of a product of 64-bit numbers.
TCNCA_HOST_DEVICE constexpr uint32_pair full_product(uint32 a, uint32 b) {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) {
    uint32_pair p;
    asm("{ .reg .b64 p; mul.wide.u32 p, %2, %3; mov.b64 {%0, %1}, p; }" : "=r"(p.low), "=r"(p.high) : "r"(a), "r"(b));
    return p;
  }
#endif
  uint64 const p = uint64(a) * b;
  return {uint32(p), uint32(p >> 32)};
}

}  // namespace tcnca::inline TCNCA_TARGET::detail
