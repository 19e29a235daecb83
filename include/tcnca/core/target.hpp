// The processor that code is compiled for. Tunings select their values by it.
#pragma once
#include "config.hpp"

namespace tcnca {

/// A processor family: 0 for the CPU, else a CUDA compute capability times ten (80, 90).
struct target {
  int compute_capability = 0;

  constexpr bool is_cpu() const { return compute_capability == 0; }
};

}  // namespace tcnca
