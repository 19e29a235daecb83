// Uses a stack without instantiating it. The shape is a run-time value, as in a framework's layer.
#include <cstdio>
#include <vector>

#include "../scratch.hpp"
#include "stack.hpp"

int main() {
  tcnca::conv_stack_shape shape{.taps = 4, .depth = 6, .dilation_base = 4, .act = tcnca::activation::relu};
  constexpr long batch = 1, channels = 8, length = 5000;
  std::vector<float> x(batch * channels * length, 1.f), y(x.size()),
      weight(std::size_t(shape.weight_sets() * shape.taps) * channels, 0.25f);
  tcnca::conv_stack_forward_args<float> const args{
      .x = tcnca::sequence<float const>(x.data(), shape.order, batch, channels, length),
      .weight = tcnca::contiguous<float const>(weight.data(), shape.weight_sets(), shape.taps, channels),
      .y = tcnca::sequence(y.data(), shape.order, batch, channels, length)};

  example::stack const* const stack = example::find_stack(shape);
  if (stack == nullptr) return std::printf("no instantiation of %s\n", to_string(shape).c_str()), 1;
  scratch_memory const scratch(stack->forward_workspace(tcnca::cpu{}, args));
  tcnca::status const status = stack->forward(tcnca::cpu{}, args, scratch);
  // Weights that sum to 1 leave a constant input unchanged once all taps lie within the sequence.
  std::printf("%s: y[%ld] = %g\n", describe(status).c_str(), length - 1, double(y[length - 1]));

  shape.taps = 5;
  if (example::find_stack(shape) != nullptr) return 1;
  std::printf("not in the table: tcnca::conv_stack_shape%s\n", to_string(shape).c_str());
  return status.ok() && y[length - 1] == 1 ? 0 : 1;
}
