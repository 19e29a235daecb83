// The same tests on a CUDA device.
#include "chunked_attention_forward_16bit.cpp"
