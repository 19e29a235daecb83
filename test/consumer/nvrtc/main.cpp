// Compiles kernels of somebody else, made of our agents, with NVRTC. The only include directory is ours.
#include <nvrtc.h>

#include <cstdio>
#include <string>

static char const source[] = R"(
#include <tcnca/chunked_attention/mma_forward.hpp>
#include <tcnca/chunked_attention/reduce.hpp>
#include <tcnca/conv_stack/backward.hpp>
#include <tcnca/conv_stack/forward.hpp>
#include <tcnca/gated_fusion/reduce.hpp>
#include <tcnca/block/group.hpp>

constexpr int threads = 128;
constexpr tcnca::conv_stack_shape shape{.taps = 4, .depth = 3, .act = tcnca::activation::silu, .residuals = tcnca::residual::level};
constexpr tcnca::conv_stack_policy policy{.width = 1, .packs = 1, .outputs_per_thread = 5, .tile = 640, .tile_max = 640, .threads = threads, .shared_memory_bytes = 48 * 1024};
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

constexpr tcnca::chunked_attention_shape attention{.causal = true, .bias = true, .dropout = true};
constexpr tcnca::chunked_attention_policy blocks{.width = 4, .tile_rows = 4, .tile_packs = 1, .query_block = 32, .key_block = 32, .value_panel = 64, .value_tile = 128,
                                                 .splits = 1, .threads = threads, .shared_memory_bytes = 48 * 1024};
using attention_forward = tcnca::chunked_attention_forward_agent<group, float, attention, blocks>;
extern "C" __global__ void __launch_bounds__(threads) attend(__grid_constant__ attention_forward::params_type const params, float* far) {
  run<attention_forward>(params, far);
}
using attention_backward = tcnca::chunked_attention_backward_agent<group, float, attention, blocks>;
extern "C" __global__ void __launch_bounds__(threads) attend_backward(__grid_constant__ attention_backward::params_type const params, float* far) {
  run<attention_backward>(params, far);
}

constexpr tcnca::gated_fusion_policy pass{.width = 8, .threads = threads, .rows = 8, .items = 1024, .streaming_bytes = 0};
using update = tcnca::update_agent<group, tcnca::bf16, tcnca::gated_fusion_shape{.dropout = true}, pass, true>;
extern "C" __global__ void __launch_bounds__(threads) update_backward(__grid_constant__ update::params_type const params, float* far) {
  run<update>(params, far);
}
using mix = tcnca::mix_backward_agent<group, tcnca::bf16, pass>;
extern "C" __global__ void __launch_bounds__(threads) mix_backward(__grid_constant__ mix::params_type const params, float* far) { run<mix>(params, far); }
)";

static bool compiles(char const* arch) {
  nvrtcProgram program;
  if (nvrtcCreateProgram(&program, source, "kernel.cu", 0, nullptr, nullptr) != NVRTC_SUCCESS) return false;
  std::string const target = std::string("--gpu-architecture=") + arch;
  char const* const options[] = {target.c_str(), "--std=c++20", "--device-as-default-execution-space",
                                 "--include-path=" INCLUDE_DIRECTORY};
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
