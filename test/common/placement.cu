// The same tests on a CUDA device.
#include "placement.cpp"
