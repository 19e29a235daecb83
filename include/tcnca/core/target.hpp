// The processor that code is compiled for. Tunings select their values by it.
#pragma once
#include "config.hpp"

namespace tcnca {

/// A processor family: 0 for the CPU, else a CUDA compute capability times ten (80, 90): the smallest one that a file
/// is compiled for. All files of a program must be compiled for the same devices.
struct target {
  int compute_capability = 0;

  constexpr bool is_cpu() const { return compute_capability == 0; }
  /// Bytes of shared memory that kernels may use for a thread block. Devices of compute capability 8.6, 8.9 and 12 have
  /// 99 KB; kernels that need more have a fallback for them.
  constexpr size_t shared_memory_bytes() const { return (compute_capability >= 90 ? 227 : 163) * size_t(1024); }
};

}  // namespace tcnca
