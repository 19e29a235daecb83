// The same tests on a CUDA device.
#include "causal.cpp"
