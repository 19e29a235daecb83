// The convolution stack on the CPU: element types, activations and skip connections. comparisons/conv_extents measures
// the layouts and decoding.
#include "conv_stack.hpp"

#include "../support/op_backend_cpu.hpp"

namespace {

using tcnca::activation, tcnca::conv_stack_shape, tcnca::layout, tcnca::residual;
constexpr layout bcl = layout::batch_channels_length, blc = layout::batch_length_channels;

constexpr conv_stack_shape few_taps(layout order, activation act = activation::none,
                                    residual residuals = residual::none) {
  return {.taps = 4, .depth = 6, .dilation_base = 4, .act = act, .residuals = residuals, .order = order};
}
constexpr conv_stack_shape many_taps(layout order) {
  return {.taps = 17, .depth = 4, .dilation_base = 16, .order = order};
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tcnca::bench;
  auto const backend = cpu_backend();
  std::vector<std::vector<std::int64_t>> sizes;
  for (int const threads : {1, 2})
    for (std::int64_t const length : {1000, 16384, 131072}) sizes.push_back({2, 64, length, threads});
  add_conv_stack<float, few_taps(bcl)>(backend, sizes);
  add_conv_stack<float, many_taps(bcl)>(backend, sizes);
  add_conv_stack<float, conv_stack_shape{.taps = 4, .depth = 1, .order = bcl}>(backend, sizes);
  add_conv_stack<tcnca::bf16, few_taps(bcl)>(backend, sizes);
  add_conv_stack<tcnca::bf16, few_taps(blc)>(backend, sizes);
  add_conv_stack<double, few_taps(bcl)>(backend, sizes);
  add_conv_stack<float, few_taps(bcl, activation::relu, residual::level)>(backend, sizes);
  add_conv_stack<float, few_taps(blc, activation::silu, residual::level)>(backend, sizes);
#if defined(TCNCA_BENCH_CUDA)
  add_cuda_conv_stack();
#endif
  return run_benchmarks(argc, argv);
}
