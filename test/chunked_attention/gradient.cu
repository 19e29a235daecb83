// The same tests on a CUDA device.
#include "gradient.cpp"
