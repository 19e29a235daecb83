// Uses the stack without instantiating it.
#include <cstdio>
#include <vector>

#include "../scratch.hpp"
#include "stack.hpp"

int main() {
  using example::stack;
  constexpr auto order = tcnca::layout::batch_channels_length;
  constexpr long batch = 1, channels = 8, length = 5000;
  std::vector<float> x(batch * channels * length, 1.f), y(x.size()), weight(stack::layers * 4 * channels, 0.25f);
  stack::forward_args const args{.x = tcnca::sequence<float const>(x.data(), order, batch, channels, length),
                                 .weight = tcnca::contiguous<float const>(weight.data(), stack::layers, 4, channels),
                                 .y = tcnca::sequence(y.data(), order, batch, channels, length)};
  scratch_memory const scratch(example::forward_workspace(tcnca::cpu{}, args));
  tcnca::status const status = example::forward(tcnca::cpu{}, args, scratch);
  // Weights that sum to 1 leave a constant input unchanged once all taps lie within the sequence.
  std::printf("%s: y[%ld] = %g\n", to_string(status), length - 1, double(y[length - 1]));
  return status.ok() && y[length - 1] == 1 ? 0 : 1;
}
