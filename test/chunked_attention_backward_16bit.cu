// The same tests on a CUDA device.
#include "chunked_attention_backward_16bit.cpp"
