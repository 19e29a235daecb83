// Where an operation runs: the first argument of every entry point.
#pragma once
#include "config.hpp"

struct CUstream_st;

namespace tcnca {

/// The CPU. The call returns when the work is done. All its threads compute in the caller's floating-point mode (rounding, denormals).
///
/// After a fork: if the parent has made a call on several threads, the child must not. GCC's OpenMP library would wait for threads that exist
/// only in the parent. Use cpu{1} in such a child (it never enters OpenMP), or fork before the first call.
struct cpu {
  /// Upper bound of the threads used, whatever `threads` or OpenMP ask for.
  static constexpr int max_threads = 1024;

  /// Number of threads at most. 0: as many as OpenMP provides. One if the consumer is built without OpenMP.
  int threads = 0;
};

/// A CUDA device, the current one. The call enqueues on the stream and returns. Needs nvcc.
struct cuda {
  CUstream_st* stream = nullptr;
};

}  // namespace tcnca
