// expect: tcnca::conv_stack: dilations must be at least 1
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<float, tcnca::conv_stack_shape{.dilations = {0, 3}}>;
