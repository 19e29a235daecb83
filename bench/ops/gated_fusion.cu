// The gates on a CUDA device.
#include "gated_fusion.hpp"

#include "baselines/ceilings_cuda.cuh"
#include "headline/device_cuda.cuh"

namespace tcnca::bench {

void add_cuda_gates() {
  if (!cuda_found()) return;
  benchmark::AddCustomContext("gpu", device_name());
  // 256 MiB a tensor in fp32; and what a short batch has.
  std::vector<std::vector<std::int64_t>> const sizes{{65536, 1024, 0}, {4096, 512, 0}};
  auto const device = [](int) { return cuda_device{}; };
  auto const copy_rate = [](int, size_t bytes) { return common_cuda_ceilings().copy_rate(bytes); };
  add_gates<cuda_device, float>("cuda/fp32", sizes, device, copy_rate);
  add_gates<cuda_device, bf16>("cuda/bf16", sizes, device, copy_rate);
}

}  // namespace tcnca::bench
