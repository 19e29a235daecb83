// One forward call: a stack of dilated convolutions over a batch of sequences, on the CPU.
#include <tcnca/conv_stack.hpp>

#include <cstdio>
#include <new>
#include <vector>

int main() {
  // 6 levels of 4 taps, dilations 1, 4, 16, ..., 1024: each output depends on the last 4096 samples.
  using stack =
      tcnca::conv_stack<float, tcnca::conv_stack_shape{
                                   .taps = 4, .depth = 6, .dilation_base = 4, .act = tcnca::activation::relu}>;
  long const batch = 2, channels = 8, length = 10000;

  std::vector<float> x(batch * channels * length, 1.f), y(x.size()), weight(stack::layers * 4 * channels, 0.25f);
  stack::forward_args const args{
      .x = tcnca::sequence<float const>(x.data(), tcnca::layout::batch_channels_length, batch, channels, length),
      .weight = tcnca::contiguous<float const>(weight.data(), stack::layers, 4, channels),
      .y = tcnca::sequence(y.data(), tcnca::layout::batch_channels_length, batch, channels, length)};

  std::size_t const bytes = stack::forward_workspace(tcnca::cpu{}, args);
  tcnca::workspace const scratch{::operator new(bytes, std::align_val_t(tcnca::workspace::alignment)), bytes};
  tcnca::status const status = stack::forward(tcnca::cpu{}, args, scratch);
  std::printf("%s: y[0] = %g, y[%ld] = %g\n", to_string(status), y[0], length - 1, y[length - 1]);
  ::operator delete(scratch.data, std::align_val_t(tcnca::workspace::alignment));
  return status.ok() ? 0 : 1;
}
