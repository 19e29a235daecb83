// The same tests on a CUDA device.
#include "mixed_precision.cpp"
