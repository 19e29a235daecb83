// The same tests on a CUDA device.
#include "rotary.cpp"
