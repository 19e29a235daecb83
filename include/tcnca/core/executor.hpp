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
  /// Whether the first kernel of the call may start before the previous kernel of the stream has completed
  /// (programmatic dependent launch, sm_90 and up); it waits for that kernel before it accesses memory. Set it only if
  /// that kernel, too, completes after all kernels before it: one that was launched in this way and does not wait for
  /// its predecessor does not. The other kernels of a call are always launched so.
  bool overlap_launch = false;
};

}  // namespace tcnca
