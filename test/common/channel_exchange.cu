// The same tests on a CUDA device.
#include "channel_exchange.cpp"
