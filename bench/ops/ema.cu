// The EMA on a CUDA GPU.
#include "ema.hpp"

#include "../support/op_backend_cuda.cuh"

namespace tcnca::bench {

void add_cuda_ema() {
  if (!cuda_found()) return;
  auto const backend = cuda_backend();
  // Up to 512 MiB per sequence in fp32, and one token of a decoder.
  std::vector<std::vector<std::int64_t>> const sizes{{4, 256, 4096, 0, 0}, {4, 256, 131072, 0, 0}, {64, 256, 1, 0, 1}};
  add_ema<float, ema_shape{}>(backend, sizes);
  add_ema<float, ema_shape{.skip = false, .order = layout::batch_length_channels}>(backend, sizes);
  add_ema<bf16, ema_shape{}>(backend, sizes);
  add_ema_kernel(backend, {{256, 131072, 0}});
}

}  // namespace tcnca::bench
