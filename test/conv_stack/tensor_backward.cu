// The same tests on a CUDA device.
#include "tensor_backward.cpp"
