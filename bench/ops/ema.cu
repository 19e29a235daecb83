// The exponential moving average on a CUDA device.
#include "ema.hpp"

#include "baselines/ceilings_cuda.cuh"
#include "headline/device_cuda.cuh"

namespace tcnca::bench {

void add_cuda_ema() {
  if (!cuda_found()) return;
  benchmark::AddCustomContext("gpu", device_name());
  bench_machine<cuda_device> const machine{[](int) { return cuda_device{}; },
                                           [](int, size_t bytes) { return common_cuda_ceilings().copy_rate(bytes); }};
  // Up to 512 MiB a sequence in fp32; and one token of a decoder.
  std::vector<std::vector<std::int64_t>> const sizes{{4, 256, 4096, 0, 0}, {4, 256, 131072, 0, 0}, {64, 256, 1, 0, 1}};
  add_ema<cuda_device, float, ema_shape{}>("cuda/", machine, sizes);
  add_ema<cuda_device, float, ema_shape{.skip = false, .order = layout::batch_length_channels}>("cuda/", machine,
                                                                                                sizes);
  add_ema<cuda_device, bf16, ema_shape{}>("cuda/", machine, sizes);
  add_kernel<cuda_device>("cuda/", machine, {{256, 131072, 0}});
}

}  // namespace tcnca::bench
