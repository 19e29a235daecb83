// The same tests on a CUDA device.
#include "laplace_relu2.cpp"
