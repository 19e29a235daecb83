// Compiles kernels that call the library's agents with NVRTC. The only include directory is the library's.
#include <nvrtc.h>

#include <cstdio>
#include <string>

static char const source[] = R"(
#include <tcnca/chunked_attention/forward.hpp>
#include <tcnca/chunked_attention/mma_forward.hpp>
#include <tcnca/chunked_attention/reduce.hpp>
#include <tcnca/conv_stack/generic/backward.hpp>
#include <tcnca/conv_stack/generic/forward.hpp>
#include <tcnca/gated_fusion/mix_backward.hpp>
#include <tcnca/gated_fusion/update.hpp>
#include <tcnca/block/group.hpp>

constexpr int threads = 128;
using group = tcnca::block_group<threads>;

template <class Agent>
__device__ void run(typename Agent::params_type const& params, float* scratch) {
  extern __shared__ float shared[];
  Agent agent(group{}, params, shared, scratch);
  agent(blockIdx.x);
}
#define KERNEL(NAME, AGENT)                             \
  extern "C" __global__ void __launch_bounds__(threads) \
      NAME(__grid_constant__ AGENT::params_type const params, float* scratch) { run<AGENT>(params, scratch); }

constexpr tcnca::conv_stack_shape shape{
    .taps = 4, .depth = 3, .act = tcnca::activation::silu, .residuals = tcnca::residual::level};
constexpr tcnca::conv_stack_policy policy{.width = 1, .packs = 1, .outputs_per_thread = 5, .tile = 640, .tile_max = 640,
                                          .threads = threads, .shared_memory_bytes = 48 * 1024};
using stack_forward = tcnca::conv_stack_forward_agent<group, float, shape, policy>;
using stack_backward = tcnca::conv_stack_backward_agent<group, tcnca::bf16, shape, policy>;
KERNEL(forward, stack_forward)
KERNEL(backward, stack_backward)

constexpr tcnca::chunked_attention_shape attention{.causal = true, .bias = true, .dropout = true};
constexpr tcnca::chunked_attention_policy blocks{
    .width = 4, .tile_rows = 4, .tile_packs = 1, .query_block = 32, .key_block = 64, .value_panel = 64,
    .value_tile = 128, .splits = 1, .threads = threads, .shared_memory_bytes = 48 * 1024};
using attention_forward = tcnca::chunked_attention_forward_agent<group, float, attention, blocks>;
using attention_backward = tcnca::chunked_attention_backward_agent<group, float, attention, blocks>;
KERNEL(attend, attention_forward)
KERNEL(attend_backward, attention_backward)

constexpr tcnca::gated_fusion_policy elementwise{
    .width = 8, .threads = threads, .rows = 8, .items = 1024, .streaming_bytes = 0};
using update = tcnca::update_agent<group, tcnca::bf16, tcnca::gated_fusion_shape{.dropout = true}, elementwise, true>;
using mix = tcnca::mix_backward_agent<group, tcnca::bf16, elementwise>;
KERNEL(update_backward, update)
KERNEL(mix_backward, mix)
)";

static bool compiles(char const* arch) {
  nvrtcProgram program;
  if (nvrtcCreateProgram(&program, source, "kernel.cu", 0, nullptr, nullptr) != NVRTC_SUCCESS) return false;
  std::string const target = std::string("--gpu-architecture=") + arch;
  int major = 0, minor = 0;
  nvrtcVersion(&major, &minor);
  char const* const options[] = {target.c_str(), "--std=c++20", "--device-as-default-execution-space",
                                 "--include-path=" INCLUDE_DIRECTORY, "--Ofast-compile=max"};
  nvrtcResult const result = nvrtcCompileProgram(program, major >= 13 ? 5 : 4, options);
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
