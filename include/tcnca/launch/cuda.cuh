// Launch on a CUDA device: one kernel template; each block is a group and takes items in turn.
#pragma once
#include <cuda_runtime.h>

#include "../block/wgmma.hpp"
#include "cpu.hpp"

namespace tcnca {

namespace detail {

/// Whether this compilation can hold the agent's code.
template <class Agent>
inline constexpr bool has_code = !clustered<Agent> || compiled_for_sm_90a;

/// A kernel without code takes too few threads: by that the host knows it.
template <class Agent, class Params, int Threads>
TCNCA_HIDDEN __global__ void __launch_bounds__(has_code<Agent> ? Threads : 1, 1)
    run_agent(__grid_constant__ Params const params, index items, size far_bytes, char* scratch) {
  if constexpr (has_code<Agent>) {
    extern __shared__ __align__(1024) char shared[];
    using accumulate = typename Agent::A;
    Agent agent(block_group<Threads>{}, params, reinterpret_cast<accumulate*>(shared),
                reinterpret_cast<accumulate*>(scratch + size(blockIdx.x) * far_bytes));
    if constexpr (clustered<Agent>) {
      for (index item = blockIdx.x / Agent::cluster_size; item < items; item += gridDim.x / Agent::cluster_size) agent(item);
    } else {
      for (index item = blockIdx.x; item < items; item += gridDim.x) agent(item);
    }
  }
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

  /// Whether code was compiled for the agent that this device runs. For agents that have another to fall back to.
  template <class Agent, class Params>
  TCNCA_HIDDEN static bool supports(cuda) {
    cudaFuncAttributes a;
    constexpr int threads = Agent::group_type::size();
    return cudaFuncGetAttributes(&a, detail::run_agent<Agent, Params, threads>) == cudaSuccess && a.maxThreadsPerBlock >= threads;
  }

  template <class Agent, class Params>
  TCNCA_HIDDEN static status launch(cuda e, Params const& params, index items, group_memory memory, workspace scratch) {
    constexpr int threads = Agent::group_type::size();
    auto const kernel = detail::run_agent<Agent, Params, threads>;
    if (items == 0) return {};
    // Without a device, on one for which nothing was compiled, or whose blocks have too little shared memory, the function takes no attribute.
    if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(memory.near_bytes)) != cudaSuccess)
      return status_code::unsupported_device;
    index const blocks = memory.far_bytes > 0 ? max(index(1), workers_that_fit(workers(e, items), bytes_per_worker(memory), scratch.bytes)) : min(items, index(1) << 30);
    if constexpr (clustered<Agent>) {
      constexpr unsigned cluster = Agent::cluster_size;
      cudaLaunchAttribute attribute = {};
      attribute.id = cudaLaunchAttributeClusterDimension;
      attribute.val.clusterDim.x = cluster, attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
      cudaLaunchConfig_t config = {};
      config.gridDim = dim3(unsigned(min(blocks, index(1) << 27)) * cluster), config.blockDim = dim3(threads);
      config.dynamicSmemBytes = memory.near_bytes, config.stream = e.stream, config.attrs = &attribute, config.numAttrs = 1;
      return cudaLaunchKernelEx(&config, kernel, params, items, bytes_per_worker(memory), static_cast<char*>(scratch.data)) == cudaSuccess
                 ? status{}
                 : status{status_code::launch_failed};
    }
    kernel<<<unsigned(blocks), threads, memory.near_bytes, e.stream>>>(params, items, bytes_per_worker(memory), static_cast<char*>(scratch.data));
    return cudaPeekAtLastError() == cudaSuccess ? status{} : status{status_code::launch_failed};
  }
};

}  // namespace tcnca
