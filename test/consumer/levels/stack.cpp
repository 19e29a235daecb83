// Compiled for a level of x86-64. Two levels of two taps with all weights 1 compute the running sum of four samples, in
// both 16-bit types.
#include <tcnca/conv_stack.hpp>

namespace {

tcnca::bf16 number(float x, tcnca::bf16) {
  return {static_cast<tcnca::uint16>(__builtin_bit_cast(tcnca::uint32, x) >> 16)};
}
tcnca::fp16 number(float x, tcnca::fp16) {  // 1, 2, 3, 4
  unsigned const bits = __builtin_bit_cast(tcnca::uint32, x);
  return {static_cast<tcnca::uint16>((((bits >> 23) - 112) << 10) | ((bits >> 13) & 0x3ff))};
}

alignas(256) unsigned char memory[1 << 20];

template <class T>
bool is_right() {
  using stack = tcnca::conv_stack<T, tcnca::conv_stack_shape{.taps = 2, .depth = 2}>;
  constexpr auto order = tcnca::layout::batch_channels_length;
  constexpr int channels = 8, length = 100;
  static T x[channels * length], weight[4 * channels], y[channels * length];
  for (T& v : x) v = number(1, T{});
  for (T& v : weight) v = number(1, T{});
  auto const answer = stack::forward(tcnca::cpu{},
                                     {.x = tcnca::sequence<T const>(x, order, 1, channels, length),
                                      .weight = tcnca::contiguous<T const>(weight, 2, 2, channels),
                                      .y = tcnca::sequence(y, order, 1, channels, length)},
                                     {memory, sizeof memory});
  bool right = answer.ok();
  for (int i = 0; i < channels * length; i++) {
    int const position = i % length;
    right = right && y[i].bits == number(position < 3 ? static_cast<float>(position + 1) : 4, T{}).bits;
  }
  return right;
}

}  // namespace

bool stacks_are_right() { return is_right<tcnca::bf16>() && is_right<tcnca::fp16>(); }
