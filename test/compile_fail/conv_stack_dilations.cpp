// expect: tcnca::conv_stack: dilations must be at least 1
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<float, tcnca::conv_stack_shape{.depth = 2, .dilations = {1, -2}}>;
