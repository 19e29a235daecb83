// The CUDA fixture, where this program was built with CUDA and finds a GPU; defined in attention_vs_gemm.cu.
#pragma once
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "fixture.hpp"

namespace tcnca::bench {

#if defined(TCNCA_BENCH_CUDA)
bool attention_device_found();
std::string attention_device_name();
std::unique_ptr<attention_fixture> make_cuda_attention_fixture(std::string const& dtype, attention_problem const& p);
#else
inline bool attention_device_found() { return false; }
inline std::string attention_device_name() { return {}; }
inline std::unique_ptr<attention_fixture> make_cuda_attention_fixture(std::string const&, attention_problem const&) {
  throw std::runtime_error("This program was built without CUDA.");
}
#endif

inline std::vector<std::string> attention_backends() {
  std::vector<std::string> names{"cpu"};
  if (attention_device_found()) names.push_back("cuda");
  return names;
}

}  // namespace tcnca::bench
