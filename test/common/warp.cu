// The same tests on a CUDA device.
#include "warp.cpp"
