// The gates on a CUDA GPU.
#include "gated_fusion.hpp"

#include "../support/op_backend_cuda.cuh"

namespace tcnca::bench {

void add_cuda_gated_fusion() {
  if (!cuda_found()) return;
  auto const backend = cuda_backend();
  // 256 MiB per tensor in fp32, and a short batch.
  std::vector<std::vector<std::int64_t>> const sizes{{65536, 1024, 0}, {4096, 512, 0}};
  add_gated_fusion<float>(backend, sizes);
  add_gated_fusion<bf16>(backend, sizes);
}

}  // namespace tcnca::bench
