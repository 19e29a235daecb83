// The layers of fp32 models on CUDA.
#include "make_layer.hpp"

template std::unique_ptr<tcnca::models::any_layer<float, tcnca::cuda>> tcnca::models::make_layer(
    model_config const&, context<float, tcnca::cuda>&, layer_config const&);
