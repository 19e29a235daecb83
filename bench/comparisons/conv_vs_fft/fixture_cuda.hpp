// The CUDA fixture, where this program was built with CUDA and finds a GPU; defined in conv_vs_fft.cu.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../support/text.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

#if defined(TCNCA_BENCH_CUDA)
bool cuda_device_found();
std::string cuda_device_name();
std::unique_ptr<conv_fixture> make_cuda_conv_fixture(std::string const& dtype, problem p, text const& input);
#else
inline bool cuda_device_found() { return false; }
inline std::string cuda_device_name() { return {}; }
inline std::unique_ptr<conv_fixture> make_cuda_conv_fixture(std::string const&, problem, text const&) {
  throw std::runtime_error("This program was built without CUDA.");
}
#endif

inline std::vector<std::string> available_backends() {
  std::vector<std::string> names{"cpu"};
  if (cuda_device_found()) names.push_back("cuda");
  return names;
}

}  // namespace tcnca::bench
