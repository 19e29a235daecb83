// The same tests on a CUDA device.
#include "skip.cpp"
