// Models in fp32, linked by the evaluations.
#include "make_network.hpp"

namespace tcnca::models {

std::unique_ptr<model> make_model(model_config const& config) {
  if (config.backend == "cpu") {
    one_blas_thread();
    return make_network<float, cpu>(config);
  }
  if (config.backend != "cuda") throw std::invalid_argument("unknown backend \"" + config.backend + "\": cpu or cuda");
#if defined(TCNCA_MODELS_CUDA)
  return make_cuda_model(config);
#else
  throw std::invalid_argument("this build has no models for CUDA: nvcc was not found, or TCNCA_CUDA is OFF");
#endif
}

}  // namespace tcnca::models
