// The CPU as a backend of the operations' benchmarks.
#pragma once
#include "../baselines/ceilings.hpp"
#include "device_cpu.hpp"
#include "op_benchmark.hpp"

namespace tcnca::bench {

inline op_backend<cpu_device> cpu_backend() {
  return {"", [](int threads) { return cpu_device{cpu{threads}}; },
          [](int threads, size_t moved_bytes) {
            static ceilings_by_threads ceilings;
            return ceilings.of(threads).copy_rate(moved_bytes);
          }};
}

}  // namespace tcnca::bench
