// The tests of the exponential moving average, on the GPU.
#include "passes.cpp"
