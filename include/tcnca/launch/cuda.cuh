// Launch on a CUDA device: one kernel template. Each thread block is a group and processes items with a grid stride.
#pragma once
#include <cuda_runtime.h>

#include <initializer_list>

#include "../arch/dependent_launch.hpp"
#include "../arch/wgmma.hpp"
#include "../block/group.hpp"
#include "executor_traits.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {

/// The smallest and the largest compute capability, times ten, that this file is compiled for.
struct compiled_capabilities {
  int smallest = 80, largest = 80;
};
inline constexpr compiled_capabilities capabilities = [] {
  compiled_capabilities c;
#if defined(__CUDA_ARCH_LIST__)
  c = {1 << 30, 0};
  for (int architecture : {__CUDA_ARCH_LIST__})
    c = {min_of(c.smallest, architecture / 10), max_of(c.largest, architecture / 10)};
#endif
  return c;
}();

/// Whether code for the agent can be generated in this compilation.
template <class Agent>
inline constexpr bool has_code = !clustered<Agent> || compiled_for_sm_90a;

/// Thread blocks that process an item together.
template <class Agent>
TCNCA_HOST_DEVICE constexpr int blocks_per_item() {
  if constexpr (clustered<Agent>) {
    return Agent::cluster_size;
  } else {
    return 1;
  }
}
template <class Agent, class Params>
TCNCA_HOST_DEVICE constexpr int blocks_per_item(Params const& params) {
  if constexpr (clustered_by_params<Agent>) {
    return Agent::cluster_size(params);
  } else {
    return blocks_per_item<Agent>();
  }
}

/// Second launch bound of an agent's kernel.
template <class Agent>
inline constexpr int resident_blocks = 1;
template <class Agent>
requires requires { Agent::blocks_per_multiprocessor; }
inline constexpr int resident_blocks<Agent> = Agent::blocks_per_multiprocessor;

/// Runs an agent. The kernel waits for its predecessor before it accesses memory, so that it can be launched early: its
/// launch and the end of the predecessor overlap. All of its threads wait, so it completes after all kernels before it.
/// Without code for this architecture the kernel is empty and has a launch bound of one thread; supports() sees the
/// bound, and the caller chooses another agent.
template <class Agent, class Params, int Threads>
TCNCA_HIDDEN __global__ void __launch_bounds__(has_code<Agent> ? Threads : 1, resident_blocks<Agent>)
    run_agent(__grid_constant__ Params const params, index_t items, size_t global_scratch_bytes, char* scratch) {
  if constexpr (has_code<Agent>) {
    wait_for_previous_kernel();
    allow_next_kernel();
    extern __shared__ __align__(1024) char shared[];
    using accumulate = typename Agent::A;
    Agent agent(block_group<Threads>{}, params, reinterpret_cast<accumulate*>(shared),
                reinterpret_cast<accumulate*>(scratch + size_t(blockIdx.x) * global_scratch_bytes));
    unsigned const blocks = unsigned(blocks_per_item<Agent>(params));
    item_range const range{index_t(blockIdx.x / blocks), items, index_t(gridDim.x / blocks)};
    if constexpr (persistent<Agent>) {
      agent(range);
    } else {
      for (index_t item = range.first; item < range.end; item += range.stride) agent(item);
    }
  }
}

/// A failed runtime call also records its error as the host thread's last error. forget() clears an error recorded
/// since construction. An error that was pending before belongs to the caller and stays.
class last_error {
 public:
  void forget() const {
    if (!pending_) (void)cudaGetLastError();
  }

 private:
  bool pending_ = cudaPeekAtLastError() != cudaSuccess;
};

/// Whether an error means that there is no device or that it cannot run the compiled code. Other errors come from
/// earlier work or the system.
inline bool is_unsupported(cudaError_t e) {
  switch (e) {
    case cudaErrorInvalidValue:  // from setting the attribute: a block has too little shared memory
    case cudaErrorNoDevice:
    case cudaErrorInsufficientDriver:
    case cudaErrorStubLibrary:
    case cudaErrorCallRequiresNewerDriver:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidKernelImage:
    case cudaErrorInvalidPtx:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
    case cudaErrorJitCompilationDisabled: return true;
    default: return false;
  }
}

/// The configuration of one launch of an agent's kernel.
template <class Agent, class Params>
struct kernel_launch {
  static constexpr int threads = Agent::group_type::size();
  static constexpr auto kernel = run_agent<Agent, Params, threads>;
  cudaLaunchConfig_t config = {};
  cudaLaunchAttribute attributes[2] = {};

  kernel_launch(index_t groups, int blocks, group_memory memory, cudaStream_t stream) {
    config.gridDim = dim3(unsigned(min_of(groups, index_t(1) << (blocks > 1 ? 27 : 30))) * unsigned(blocks));
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = memory.shared_memory_bytes, config.stream = stream;
    if constexpr (clustered<Agent>) {
      attributes[0].id = cudaLaunchAttributeClusterDimension;
      attributes[0].val.clusterDim.x = unsigned(blocks);
      attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
      config.attrs = attributes, config.numAttrs = 1;
    }
  }
  kernel_launch(kernel_launch const&) = delete;

  /// Allows the kernel as much shared memory as the device has. Every call sets the same limit, so that host threads do
  /// not overwrite each other's limit.
  TCNCA_HIDDEN static cudaError_t prepare(group_memory memory) {
    int device = 0, limit = 0;
    cudaError_t error = cudaGetDevice(&device);
    if (error == cudaSuccess) error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    int const most = max_of(limit, int(min_of(memory.shared_memory_bytes, size_t(1) << 30)));
    if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    return error;
  }

  /// Permits the launch before the previous kernel of the stream has completed, if the code that the device runs waits
  /// for that kernel, and the driver can capture such launches in graphs.
  TCNCA_HIDDEN void overlap() {
#if CUDART_VERSION >= 12030
    if constexpr (capabilities.largest >= 90) {
      last_error const before;
      int driver = 0;
      bool known = cudaDriverGetVersion(&driver) == cudaSuccess;
      if constexpr (capabilities.smallest < 90) {
        cudaFuncAttributes a;
        known = known && cudaFuncGetAttributes(&a, kernel) == cudaSuccess && a.ptxVersion >= 90;
      }
      if (!known) before.forget();
      if (!known || driver < 12030) return;
      cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
      attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
      attribute.val.programmaticStreamSerializationAllowed = 1;
      config.attrs = attributes;
    }
#endif
  }
};

}  // namespace detail

template <>
struct executor_traits<cuda> {
  static constexpr tcnca::target target{detail::capabilities.smallest};
  template <int Threads>
  using group = block_group<Threads>;

  static constexpr bool valid(cuda) { return true; }

  /// Groups that may run at the same time and need global scratch: two per multiprocessor of an H100.
  static constexpr index_t workers(cuda, index_t items) { return max_of(index_t(1), min_of(items, index_t(264))); }
  static constexpr size_t bytes_per_worker(group_memory m) {
    return round_up(m.global_scratch_bytes, detail::workspace_granularity);
  }

  /// Whether this device can run the code compiled for the agent and has this much shared memory for a block. For
  /// agents with a fallback.
  template <class Agent, class Params>
  TCNCA_HIDDEN static bool supports(cuda, group_memory memory = {}) {
    detail::last_error const before;
    cudaFuncAttributes a;
    constexpr int threads = Agent::group_type::size();
    int device = 0, limit = 0;
    bool const known = cudaFuncGetAttributes(&a, detail::run_agent<Agent, Params, threads>) == cudaSuccess &&
                       cudaGetDevice(&device) == cudaSuccess &&
                       cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) == cudaSuccess;
    if (!known) before.forget();
    return known && a.maxThreadsPerBlock >= threads && memory.shared_memory_bytes <= size_t(limit);
  }

  /// Groups of an agent that the device can hold at the same time; for a clustered agent, clusters. At least 1.
  template <class Agent, class Params>
  TCNCA_HIDDEN static index_t resident_groups(cuda, group_memory memory,
                                              int blocks = detail::blocks_per_item<Agent>()) {
    detail::last_error const before;
    int count = 0;
    bool known = false;
    if constexpr (clustered<Agent>) {
      detail::kernel_launch<Agent, Params> launch(1, blocks, memory, nullptr);
      known = launch.prepare(memory) == cudaSuccess &&
              cudaOccupancyMaxActiveClusters(&count, launch.kernel, &launch.config) == cudaSuccess;
    } else {
      int device = 0, multiprocessors = 0;
      detail::kernel_launch<Agent, Params> launch(1, blocks, memory, nullptr);
      known = launch.prepare(memory) == cudaSuccess && cudaGetDevice(&device) == cudaSuccess &&
              cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device) == cudaSuccess &&
              cudaOccupancyMaxActiveBlocksPerMultiprocessor(&count, launch.kernel, Agent::group_type::size(),
                                                            memory.shared_memory_bytes) == cudaSuccess;
      count *= multiprocessors;
    }
    if (!known) before.forget();
    return known ? max_of(count, 1) : 1;
  }

  /// Reports errors of the runtime calls made here and clears them. An error that was pending before stays pending.
  template <class Agent, class Params>
  TCNCA_HIDDEN static status launch(cuda e, Params const& params, index_t items, group_memory memory,
                                    workspace scratch) {
    if (items == 0) return {};
    detail::last_error const before;
    int const blocks = detail::blocks_per_item<Agent>(params);
    index_t groups = min_of(items, index_t(1) << 30);
    if (memory.global_scratch_bytes > 0)
      groups = max_of(index_t(1), workers_that_fit(workers(e, items), bytes_per_worker(memory), scratch.bytes));
    if constexpr (persistent<Agent>) { groups = min_of(groups, resident_groups<Agent, Params>(e, memory, blocks)); }
    detail::kernel_launch<Agent, Params> launch(groups, blocks, memory, e.stream);
    cudaError_t error = launch.prepare(memory);
    if (error != cudaSuccess) {
      before.forget();
      return {detail::is_unsupported(error) ? status_code::unsupported_device : status_code::launch_failed,
              cudaGetErrorName(error)};
    }
    if (e.overlap_launch) launch.overlap();
    error = cudaLaunchKernelEx(&launch.config, launch.kernel, params, items, bytes_per_worker(memory),
                               static_cast<char*>(scratch.data));
    if (error == cudaSuccess) return {};
    before.forget();
    return {status_code::launch_failed, cudaGetErrorName(error)};
  }
};

}  // namespace tcnca
