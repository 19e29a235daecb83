// The tests of the parts of models, on the GPU.
#include "model_parts.cpp"
