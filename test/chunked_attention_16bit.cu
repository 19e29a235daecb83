// The same tests on a CUDA device.
#include "chunked_attention_16bit.cpp"
