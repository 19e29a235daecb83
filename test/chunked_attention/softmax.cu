// The same tests on a CUDA device.
#include "softmax.cpp"
