// A CUDA runtime for count.py that launches nothing: it prints each launch with its parameters. It takes the place of
// libcudart (nvcc -cudart none), answers as an H100, and reads what it must know of the kernels from the file that
// TCNCA_COUNTED_KERNELS names, a line each: mangled name, registers, most threads of a block, bytes of static shared
// memory, and offset and size of each parameter. If TCNCA_COUNTED_SHARED is set, a block may have so many bytes of
// shared memory. A tensor map holds the bytes of its box.
#include <cuda.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr int multiprocessors = 132, shared_of_multiprocessor = 228 * 1024;
int const shared_of_block = [] {
  char const* const bytes = std::getenv("TCNCA_COUNTED_SHARED");
  return bytes ? std::atoi(bytes) : 227 * 1024;
}();

struct parameter {
  int offset, size;
};
struct kernel {
  std::string name;
  int registers = 0, threads = 0, shared = 0;
  std::vector<parameter> parameters;
};

std::map<void const*, std::string>& names() {
  static std::map<void const*, std::string> all;
  return all;
}

kernel const* find(void const* function) {
  static std::map<std::string, kernel> const all = [] {
    std::map<std::string, kernel> read;
    char const* const path = std::getenv("TCNCA_COUNTED_KERNELS");
    std::ifstream file(path ? path : "");
    for (std::string line; std::getline(file, line);) {
      std::istringstream words(line);
      kernel k;
      words >> k.name >> k.registers >> k.threads >> k.shared;
      for (parameter p{}; words >> p.offset >> p.size;) k.parameters.push_back(p);
      read[k.name] = k;
    }
    return read;
  }();
  auto const name = names().find(function);
  auto const found = name == names().end() ? all.end() : all.find(name->second);
  return found == all.end() ? nullptr : &found->second;
}

/// Blocks of a kernel on a multiprocessor.
int resident(kernel const& k, int threads, size_t dynamic_shared) {
  int const warps = (threads + 31) / 32, registers = std::max(k.registers, 8);
  int const by_registers = 4 * (65536 / 4 / ((registers + 7) / 8 * 256)) / warps;
  int const by_shared =
      shared_of_multiprocessor / ((k.shared + static_cast<int>(dynamic_shared) + 1024 + 127) / 128 * 128);
  return std::min({64 / warps, 32, by_registers, by_shared});
}

cudaError_t record(void const* function, dim3 grid, dim3 block, unsigned cluster, size_t shared, void** arguments) {
  kernel const* const k = find(function);
  if (!k) return cudaErrorInvalidDeviceFunction;
  std::printf("%s %u %u %u %zu %d ", k->name.c_str(), grid.x * grid.y * grid.z, block.x, cluster, shared,
              resident(*k, static_cast<int>(block.x), shared));
  std::vector<unsigned char> bytes;
  for (size_t i = 0; i < k->parameters.size(); i++) {
    parameter const p = k->parameters[i];
    bytes.resize(std::max(bytes.size(), static_cast<size_t>(p.offset + p.size)));
    std::copy_n(static_cast<unsigned char*>(arguments[i]), p.size, bytes.begin() + p.offset);
  }
  for (unsigned char const b : bytes) std::printf("%02x", b);
  std::printf("\n");
  return cudaSuccess;
}

CUresult CUDAAPI encode(CUtensorMap* map, CUtensorMapDataType, cuuint32_t rank, void*, cuuint64_t const*,
                        cuuint64_t const*, cuuint32_t const* box, cuuint32_t const*, CUtensorMapInterleave,
                        CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
  cuuint64_t bytes = 2;  // of an element
  for (cuuint32_t axis = 0; axis < rank; axis++) bytes *= box[axis];
  *map = {};
  return map->opaque[0] = bytes, CUDA_SUCCESS;
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
char __cudaInitModule(void**) { return 0; }
void __cudaRegisterVar(void**, char*, char*, char const*, int, size_t, int, int) {}
void __cudaRegisterFunction(void**, char const* function, char*, char const* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  names()[function] = name;
}
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaGetKernel(cudaKernel_t* handle, void const* function) {
  return *handle = reinterpret_cast<cudaKernel_t>(const_cast<void*>(function)), cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { return cudaErrorNotSupported; }

cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
char const* cudaGetErrorName(cudaError_t) { return "an error of recorder.cpp"; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = shared_of_block; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = multiprocessors; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; return cudaSuccess;
    default: return cudaErrorInvalidValue;
  }
}
cudaError_t cudaGetDriverEntryPoint(char const*, void** function, unsigned long long,
                                    cudaDriverEntryPointQueryResult* found) {
  *function = reinterpret_cast<void*>(&encode), *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
cudaError_t cudaGetDriverEntryPointByVersion(char const*, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  *function = reinterpret_cast<void*>(&encode), *found = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* a, void const* function) {
  kernel const* const k = find(function);
  if (!k) return cudaErrorInvalidDeviceFunction;
  *a = {};
  a->numRegs = k->registers, a->maxThreadsPerBlock = k->threads, a->sharedSizeBytes = static_cast<size_t>(k->shared);
  return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(void const*, cudaFuncAttribute, int value) {
  return value <= shared_of_block ? cudaSuccess : cudaErrorInvalidValue;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void const* function, int threads,
                                                                   size_t shared, unsigned) {
  kernel const* const k = find(function);
  if (!k) return cudaErrorInvalidDeviceFunction;
  *blocks = resident(*k, threads, shared);
  return cudaSuccess;
}
cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void const* function, int threads,
                                                          size_t shared) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(blocks, function, threads, shared, 0);
}
cudaError_t cudaOccupancyMaxActiveClusters(int* clusters, void const* function, cudaLaunchConfig_t const* config) {
  int blocks = 0;
  cudaError_t const error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(
      &blocks, function, static_cast<int>(config->blockDim.x), config->dynamicSmemBytes);
  *clusters = blocks * multiprocessors / static_cast<int>(config->attrs[0].val.clusterDim.x);
  return error;
}
cudaError_t cudaLaunchKernelExC(cudaLaunchConfig_t const* config, void const* function, void** arguments) {
  unsigned cluster = 1;
  for (unsigned i = 0; i < config->numAttrs; i++)
    if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) cluster = config->attrs[i].val.clusterDim.x;
  return record(function, config->gridDim, config->blockDim, cluster, config->dynamicSmemBytes, arguments);
}
}
