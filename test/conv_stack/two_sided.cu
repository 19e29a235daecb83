// The same tests on a CUDA device.
#include "two_sided.cpp"
