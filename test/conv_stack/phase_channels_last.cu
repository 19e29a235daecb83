// The same tests on a CUDA device.
#include "phase_channels_last.cpp"
