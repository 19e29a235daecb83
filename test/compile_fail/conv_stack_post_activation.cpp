// expect: tcnca::conv_stack: post_activation needs residuals
#include <tcnca/conv_stack.hpp>

template struct tcnca::conv_stack<float, tcnca::conv_stack_shape{.post_activation = true}>;
