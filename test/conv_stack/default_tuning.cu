// The same tests on a CUDA device.
#include "default_tuning.cpp"
