// expect: tcnca::conv_stack: depth must be the number of dilations listed, or be left out
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<float, tcnca::conv_stack_shape{.depth = 3, .dilations = {1, 3, 7, 2}}>;
