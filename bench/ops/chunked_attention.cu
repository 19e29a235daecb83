// Chunked attention on a CUDA GPU: few shapes, because each costs nvcc a minute. attention_vs_gemm has more.
#include "chunked_attention.hpp"

#include "../support/op_backend_cuda.cuh"

namespace tcnca::bench {

void add_cuda_chunked_attention() {
  if (!cuda_found()) return;
  auto const backend = cuda_backend();
  std::vector<std::vector<std::int64_t>> const sizes{{8, 32768, 512, 128, 1024, 0}, {8, 32768, 2048, 128, 1024, 0}};
  add_chunked_attention<float, chunked_attention_shape{.causal = true, .bias = true}>(backend, sizes);
  add_chunked_attention<bf16, chunked_attention_shape{.causal = true, .bias = true}>(backend, sizes);
}

}  // namespace tcnca::bench
