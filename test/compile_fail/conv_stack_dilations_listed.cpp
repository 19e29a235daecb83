// expect: tcnca::conv_stack: a list holds at most 16 dilations
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<float, tcnca::conv_stack_shape{.depth = 17, .dilations = {1}}>;
