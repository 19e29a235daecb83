// The tests of the gates, on the GPU.
#include "gates.cpp"
