// Gradients of parameters over a million positions, on the GPU.
#include "long_sums.cpp"
