// The same tests on a CUDA device.
#include "tensor_channels_last.cpp"
