// The models that evaluation programs are linked with, on the CPU, in fp32.
#include "make_network.hpp"

namespace tcnca::models {

std::unique_ptr<model> make_model(model_config const& config) {
  if (config.backend == "cpu") {
    one_blas_thread();
    return make_network<float, cpu>(config);
  }
  if (config.backend == "cuda") throw std::invalid_argument("this build has no models for CUDA");
  throw std::invalid_argument("there is no backend \"" + config.backend + "\": there are cpu and cuda");
}

}  // namespace tcnca::models
