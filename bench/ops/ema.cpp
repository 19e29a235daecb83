// The EMA on the CPU.
#include "ema.hpp"

#include "../support/op_backend_cpu.hpp"

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  using tcnca::bf16, tcnca::direction, tcnca::ema_shape, tcnca::layout;
  auto const backend = cpu_backend();
  std::vector<std::vector<std::int64_t>> sizes;
  for (int const threads : {1, 2})
    for (std::int64_t const length : {1000, 16384, 131072}) sizes.push_back({2, 64, length, threads, 0});
  sizes.push_back({2, 64, 16384, 1, 1});
  sizes.push_back({2, 64, 1, 1, 1});  // one token of a decoder
  constexpr layout blc = layout::batch_length_channels;
  add_ema<float, ema_shape{}>(backend, sizes);
  add_ema<float, ema_shape{.skip = false}>(backend, sizes);
  add_ema<float, ema_shape{.skip = false, .order = blc}>(backend, sizes);
  add_ema<float, ema_shape{.dir = direction::bidirectional}>(backend, sizes);
  add_ema<bf16, ema_shape{}>(backend, sizes);
  add_ema<double, ema_shape{.skip = false}>(backend, sizes);
  add_ema_kernel(backend, {{64, 1000, 1}, {64, 131072, 1}});
#if defined(TCNCA_BENCH_CUDA)
  add_cuda_ema();
#endif
  return run_benchmarks(argc, argv);
}
