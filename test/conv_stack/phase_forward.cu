// The same tests on a CUDA device.
#include "phase_forward.cpp"
