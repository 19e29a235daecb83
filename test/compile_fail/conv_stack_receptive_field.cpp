// expect: tcnca::conv_stack: the receptive field must not pass 2^30
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<float, tcnca::conv_stack_shape{.taps = 3, .depth = 31}>;
