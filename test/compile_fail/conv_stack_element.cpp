// expect: constraints not satisfied
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<int, tcnca::conv_stack_shape{.taps = 2}>;
