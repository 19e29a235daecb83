// Where an operation runs: the first argument of every entry point.
#pragma once
#include "config.hpp"

struct CUstream_st;

namespace tcnca {

/// The CPU. The call returns when the work is done. All threads compute in the caller's floating-point mode (rounding,
/// denormals).
///
/// After a fork: if the parent has made a call on several threads, the child must use cpu{1}, which does not enter
/// OpenMP. GCC's OpenMP library would wait for threads that exist only in the parent.
struct cpu {
  /// Upper bound of the number of threads, whatever `threads` or OpenMP request.
  static constexpr int max_threads = 1024;

  /// Maximum number of threads; 0: OpenMP's maximum. Without OpenMP one thread is used.
  int threads = 0;
};

/// The current CUDA device. The call enqueues its work on the stream and returns. Requires nvcc.
struct cuda {
  CUstream_st* stream = nullptr;
};

}  // namespace tcnca
