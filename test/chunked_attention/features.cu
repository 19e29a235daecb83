// The same tests on a CUDA device.
#include "features.cpp"
