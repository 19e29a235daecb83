// The convolution stack on a CUDA GPU: few shapes, because each costs nvcc a minute. conv_vs_fft has more.
#include "conv_stack.hpp"

#include "../support/op_backend_cuda.cuh"

namespace tcnca::bench {

void add_cuda_conv_stack() {
  if (!cuda_found()) return;
  auto const backend = cuda_backend();
  constexpr conv_stack_shape shape{.taps = 4, .depth = 6, .dilation_base = 4, .order = layout::batch_channels_length};
  std::vector<std::vector<std::int64_t>> const sizes{{4, 256, 4096, 0}, {4, 256, 131072, 0}};
  add_conv_stack<float, shape>(backend, sizes);
  add_conv_stack<bf16, shape>(backend, sizes);
}

}  // namespace tcnca::bench
