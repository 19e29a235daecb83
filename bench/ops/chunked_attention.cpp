// Chunked attention on the CPU.
#include "chunked_attention.hpp"

#include "../support/op_backend_cpu.hpp"

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  using enum tcnca::attention_function;
  auto const backend = cpu_backend();
  std::vector<std::vector<std::int64_t>> sizes;
  for (int const threads : {1, 2}) {
    for (std::int64_t const chunk : {128, 512, 2048})
      sizes.push_back({1, chunk == 128 ? 512 : 2 * chunk, chunk, 128, 1024, threads});
    sizes.push_back({1, 1024, 512, 64, 256, threads});
    sizes.push_back({1, 2000, 1000, 128, 2048, threads});
  }
  add_chunked_attention<float, {.function = softmax}>(backend, sizes);
  add_chunked_attention<float, {.function = softmax, .causal = true}>(backend, sizes);
  add_chunked_attention<float, {.function = softmax, .causal = true, .bias = true}>(backend, sizes);
  add_chunked_attention<float, {.function = softmax, .causal = true, .bias = true, .dropout = true}>(backend, sizes);
  add_chunked_attention<float, {.function = laplace, .causal = true, .bias = true}>(backend, sizes);
  add_chunked_attention<float, {.function = laplace}>(backend, sizes);
  add_chunked_attention<float, {.function = relu2, .causal = true}>(backend, sizes);
  add_chunked_attention<tcnca::bf16, {.function = softmax, .causal = true}>(backend, sizes);
#if defined(TCNCA_BENCH_CUDA)
  add_cuda_chunked_attention();
#endif
  return run_benchmarks(argc, argv);
}
