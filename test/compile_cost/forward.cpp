// One instantiation of conv_stack's forward pass on the CPU. check_compile_cost.sh measures its compile time.
#include <tcnca/conv_stack.hpp>

using stack = tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4}>;

tcnca::status run(stack::forward_args const& args, tcnca::workspace scratch) {
  return stack::forward(tcnca::cpu{}, args, scratch);
}
