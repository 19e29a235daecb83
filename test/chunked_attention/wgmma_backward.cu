// The same tests on a CUDA device.
#include "wgmma_backward.cpp"
