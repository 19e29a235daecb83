// fp32 models on a CUDA device.
#include "make_network.hpp"

namespace tcnca::models {

std::unique_ptr<model> make_cuda_model(model_config const& config) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
    throw std::invalid_argument("there is no CUDA device");
  return make_network<float, cuda>(config);
}

}  // namespace tcnca::models
