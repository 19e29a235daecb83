// The same tests on a CUDA device.
#include "packed.cpp"
