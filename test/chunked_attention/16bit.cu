// The same tests on a CUDA device.
#include "16bit.cpp"
