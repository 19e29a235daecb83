// The same tests on a CUDA device.
#include "tensor_backward_channels_last.cpp"
