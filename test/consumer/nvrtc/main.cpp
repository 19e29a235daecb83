// Compiles kernels of somebody else, made of our agents, with NVRTC. The only include directory is ours.
#include <nvrtc.h>

#include <cstdio>
#include <string>

static char const source[] = R"(
#include <tcnca/agent/conv_stack_backward.hpp>
#include <tcnca/agent/conv_stack_forward.hpp>
#include <tcnca/block/group.hpp>

constexpr int threads = 128;
constexpr tcnca::conv_stack_shape shape{.taps = 4, .depth = 3, .act = tcnca::activation::silu, .residuals = tcnca::residual::level};
constexpr tcnca::conv_stack_policy policy{.width = 1, .packs = 1, .run = 5, .tile = 640, .tile_max = 640, .threads = threads, .near_bytes = 48 * 1024};
using group = tcnca::block_group<threads>;

template <class Agent>
__device__ void run(typename Agent::params_type const& params, float* far) {
  extern __shared__ float near[];
  Agent agent(group{}, params, near, far);
  agent(blockIdx.x);
}

using forward_agent = tcnca::conv_stack_forward_agent<group, float, shape, policy>;
extern "C" __global__ void __launch_bounds__(threads) forward(__grid_constant__ forward_agent::params_type const params, float* far) {
  run<forward_agent>(params, far);
}

using backward_agent = tcnca::conv_stack_backward_agent<group, tcnca::bf16, shape, policy>;
extern "C" __global__ void __launch_bounds__(threads) backward(__grid_constant__ backward_agent::params_type const params, float* far) {
  run<backward_agent>(params, far);
}
)";

static bool compiles(char const* arch) {
  nvrtcProgram program;
  if (nvrtcCreateProgram(&program, source, "kernel.cu", 0, nullptr, nullptr) != NVRTC_SUCCESS) return false;
  std::string const target = std::string("--gpu-architecture=") + arch;
  char const* const options[] = {target.c_str(), "--std=c++20", "--device-as-default-execution-space", "--include-path=" INCLUDE_DIRECTORY};
  nvrtcResult const result = nvrtcCompileProgram(program, 4, options);
  std::size_t log_size = 0, code_size = 0;
  nvrtcGetProgramLogSize(program, &log_size);
  std::string log(log_size, '\0');
  nvrtcGetProgramLog(program, log.data());
  nvrtcGetCUBINSize(program, &code_size);
  nvrtcDestroyProgram(&program);
  std::printf("%s: %s, %zu bytes of code\n%s\n", arch, nvrtcGetErrorString(result), code_size, log.c_str());
  return result == NVRTC_SUCCESS && code_size > 0;
}

int main() { return compiles("sm_80") && compiles("sm_90a") ? 0 : 1; }
