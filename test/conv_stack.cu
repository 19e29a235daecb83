// The same tests on a CUDA device.
#include "conv_stack.cpp"
