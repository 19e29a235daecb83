// Launch on a CUDA device: one kernel template; each block is a group and takes items in turn.
#pragma once
#include <cuda_runtime.h>

#include "cpu.hpp"

namespace tcnca {

namespace detail {

template <class Agent, class Params, int Threads>
TCNCA_HIDDEN __global__ void __launch_bounds__(Threads, 1) run_agent(__grid_constant__ Params const params, index items, size far_bytes, char* scratch) {
  extern __shared__ __align__(256) char shared[];
  using accumulate = typename Agent::A;
  Agent agent(block_group<Threads>{}, params, reinterpret_cast<accumulate*>(shared),
              reinterpret_cast<accumulate*>(scratch + size(blockIdx.x) * far_bytes));
  for (index item = blockIdx.x; item < items; item += gridDim.x) agent(item);
}

}  // namespace detail

template <>
struct executor_traits<cuda> {
  static constexpr machine target{80};
  template <int Threads>
  using group = block_group<Threads>;

  static constexpr bool valid(cuda) { return true; }

  /// Groups that may be in flight and so need memory of their own: two on each multiprocessor of an H100.
  static constexpr index workers(cuda, index items) { return max(index(1), min(items, index(264))); }
  static constexpr size bytes_per_worker(group_memory m) { return round_up(m.far_bytes, workspace::alignment); }

  template <class Agent, class Params>
  TCNCA_HIDDEN static status launch(cuda e, Params const& params, index items, group_memory memory, void* scratch) {
    constexpr int threads = Agent::group_type::size();
    auto const kernel = detail::run_agent<Agent, Params, threads>;
    if (items == 0) return {};
    // Without a device, on one for which nothing was compiled, or whose blocks have too little shared memory, the function takes no attribute.
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(memory.near_bytes)) != cudaSuccess)
      return status_code::unsupported_device;
    index const blocks = memory.far_bytes > 0 ? workers(e, items) : min(items, index(1) << 30);
    kernel<<<unsigned(blocks), threads, memory.near_bytes, e.stream>>>(params, items, bytes_per_worker(memory), static_cast<char*>(scratch));
    return cudaPeekAtLastError() == cudaSuccess ? status{} : status{status_code::launch_failed};
  }
};

}  // namespace tcnca
