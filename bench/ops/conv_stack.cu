// The convolution stack on a CUDA GPU: the stacks of conv_vs_fft with K D <= 68, which are the default kernels, in both
// layouts, and decoding. Few shapes, because each costs nvcc a minute. The copy bandwidth of the share is measured in
// the same run.
#include "conv_stack.hpp"

#include "../support/op_backend_cuda.cuh"

namespace tcnca::bench {
namespace {

constexpr conv_stack_shape stack(int taps, int base, int depth, layout order = layout::batch_channels_length) {
  return {.taps = taps, .depth = depth, .dilation_base = base, .order = order};
}

}  // namespace

void add_cuda_conv_stack() {
  if (!cuda_found()) return;
  auto const backend = cuda_backend();
  constexpr layout last = layout::batch_length_channels;
  // Rows of every block, and few long rows, which are split into segments.
  std::vector<std::vector<std::int64_t>> const sizes{{4, 1024, 8192, 0}, {1, 512, 131072, 0}};
  add_conv_stack<bf16, stack(4, 4, 6)>(backend, sizes);
  add_conv_stack<bf16, stack(8, 8, 5)>(backend, sizes);
  add_conv_stack<bf16, stack(17, 16, 4)>(backend, sizes);
  add_conv_stack<bf16, stack(4, 4, 6, last)>(backend, sizes);
  add_conv_stack<bf16, stack(17, 16, 4, last)>(backend, sizes);
  add_conv_stack<float, stack(4, 4, 6)>(backend, sizes);
  add_conv_stack<float, stack(17, 16, 4)>(backend, sizes);
  add_conv_stack<float, stack(4, 4, 6, last)>(backend, sizes);
  std::vector<std::vector<std::int64_t>> const tokens{{64, 1024, 1, 0}};
  add_conv_stack_decode<bf16, stack(4, 4, 6)>(backend, tokens);
  add_conv_stack_decode<bf16, stack(4, 4, 6, last)>(backend, tokens);
  add_conv_stack_decode<float, stack(4, 4, 6, last)>(backend, tokens);
}

}  // namespace tcnca::bench
