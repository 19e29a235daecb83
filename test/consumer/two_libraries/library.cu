// Compiled for each of two architectures. RUN is a different name in each library.
#include "library.hpp"

#include <tcnca/conv_stack.hpp>

using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 2, .depth = 2}>;

char const* RUN(bool on_device, io& b) {
  for (float& x : b.x) x = 1;
  for (float& w : b.weight) w = 1;
  stack::forward_args const args{.x = tcnca::contiguous(b.x, 1, 1, 8),
                                 .weight = tcnca::contiguous(b.weight, 2, 2, 1),
                                 .y = tcnca::contiguous(b.y, 1, 1, 8)};
  tcnca::workspace const scratch{b.scratch, sizeof b.scratch};
  tcnca::status const answer =
      on_device ? stack::forward(tcnca::cuda{}, args, scratch) : stack::forward(tcnca::cpu{}, args, scratch);
  if (!answer.ok()) return to_string(answer);
  return on_device && cudaDeviceSynchronize() != cudaSuccess ? "the kernel failed" : nullptr;
}
