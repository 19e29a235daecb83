// The same tests on a CUDA device.
#include "phase_backward.cpp"
