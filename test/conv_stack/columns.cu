// The same tests on a CUDA device.
#include "columns.cpp"
