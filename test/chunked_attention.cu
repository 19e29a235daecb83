// The same tests on a CUDA device.
#include "chunked_attention.cpp"
