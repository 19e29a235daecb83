// A CUDA GPU as a backend of the operations' benchmarks.
#pragma once
#include "../baselines/ceilings_cuda.cuh"
#include "device_cuda.cuh"
#include "op_benchmark.hpp"

namespace tcnca::bench {

/// Call it only if cuda_found().
inline op_backend<cuda_device> cuda_backend() {
  benchmark::AddCustomContext("gpu", device_name());
  return {"cuda/", [](int) { return cuda_device{}; },
          [](int, size_t moved_bytes) { return common_cuda_ceilings().copy_rate(moved_bytes); }};
}

}  // namespace tcnca::bench
