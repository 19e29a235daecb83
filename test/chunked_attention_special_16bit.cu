// The same tests on a CUDA device.
#include "chunked_attention_special_16bit.cpp"
