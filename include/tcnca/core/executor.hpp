// Where an operation runs: the first argument of every entry point.
#pragma once
#include "config.hpp"

struct CUstream_st;

namespace tcnca {

/// The CPU. The call returns when the work is done.
struct cpu {
  /// 0: as many as OpenMP gives. Without OpenMP in the consumer's build, always one.
  int threads = 0;
};

/// A CUDA device, the current one. The call enqueues on the stream and returns. Needs nvcc.
struct cuda {
  CUstream_st* stream = nullptr;
};

}  // namespace tcnca
