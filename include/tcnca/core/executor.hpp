// Where an operation runs: the first argument of every entry point.
#pragma once
#include "config.hpp"

struct CUstream_st;

namespace tcnca {

/// The CPU. The call returns when the work is done. All its threads compute in the caller's floating-point mode (rounding, denormals).
///
/// After a fork, a child of a process that had used several threads must not use several itself: GCC's OpenMP library waits there for threads that
/// exist in the parent only. Give such children cpu{1}, which never enters OpenMP, or fork before the first call.
struct cpu {
  /// More threads than this are never used, whatever `threads` or OpenMP say.
  static constexpr int max_threads = 1024;

  /// 0: as many as OpenMP gives; else at most so many. Without OpenMP in the consumer's build, always one.
  int threads = 0;
};

/// A CUDA device, the current one. The call enqueues on the stream and returns. Needs nvcc.
struct cuda {
  CUstream_st* stream = nullptr;
};

}  // namespace tcnca
