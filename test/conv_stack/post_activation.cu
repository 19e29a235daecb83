// The same tests on a CUDA device.
#include "post_activation.cpp"
