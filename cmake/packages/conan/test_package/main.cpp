// Two levels of two taps with all weights 1 compute the running sum of four samples.
#include <tcnca/conv_stack.hpp>

#include <cstdio>

using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 2, .depth = 2}>;

int main() {
  alignas(256) static unsigned char scratch[1 << 20];
  float x[8], y[8], weight[4] = {1, 1, 1, 1};
  for (float& v : x) v = 1;
  tcnca::status const status = stack::forward(tcnca::cpu{1},
                                              {.x = tcnca::contiguous<float const>(x, 1, 1, 8),
                                               .weight = tcnca::contiguous<float const>(weight, 2, 2, 1),
                                               .y = tcnca::contiguous(y, 1, 1, 8)},
                                              {scratch, sizeof scratch});
  bool right = status.ok();
  for (int i = 0; i < 8; i++) right = right && y[i] == static_cast<float>(i < 3 ? i + 1 : 4);
  std::puts(right ? "the results are right" : "the results are wrong");
  return right ? 0 : 1;
}
