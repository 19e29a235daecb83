// The tests of the gates, on the GPU.
#include "gated_fusion.cpp"
