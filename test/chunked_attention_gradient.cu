// The tests of rotary biases on a CUDA device.
#include "chunked_attention_gradient.cpp"
