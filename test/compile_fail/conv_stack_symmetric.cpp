// expect: tcnca::conv_stack: a symmetric stack needs an odd number of taps
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 2, .dir = tcnca::direction::symmetric}>;
