// The layers of fp32 models on the CPU.
#include "make_layer.hpp"

template std::unique_ptr<tcnca::models::any_layer<float, tcnca::cpu>> tcnca::models::make_layer(
    model_config const&, context<float, tcnca::cpu>&, layer_config const&);
