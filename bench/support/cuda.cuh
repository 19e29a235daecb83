// CUDA helpers: errors as exceptions, the device's name, event timing, and Thrust vectors as pointers and host vectors.
#pragma once
#include <cuda_runtime.h>
#include <thrust/copy.h>
#include <thrust/device_vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include <tcnca/core/config.hpp>

namespace tcnca::bench {

inline void require(cudaError_t e) {
  if (e != cudaSuccess) throw std::runtime_error(std::string("A CUDA call failed: ") + cudaGetErrorString(e) + ".");
}

inline bool cuda_found() {
  int devices = 0;
  bool const found = cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
  (void)cudaGetLastError();
  return found;
}

/// "NVIDIA H200"
inline std::string device_name() {
  int device = 0;
  cudaDeviceProp properties{};
  require(cudaGetDevice(&device));
  require(cudaGetDeviceProperties(&properties, device));
  return properties.name;
}

/// The address of a vector's elements, for kernels and libraries.
template <class T>
T* raw(thrust::device_vector<T>& v) {
  return thrust::raw_pointer_cast(v.data());
}
template <class T>
T const* raw(thrust::device_vector<T> const& v) {
  return thrust::raw_pointer_cast(v.data());
}

template <class T>
std::vector<T> to_host(thrust::device_vector<T> const& v) {
  std::vector<T> host(v.size());
  thrust::copy(v.begin(), v.end(), host.begin());
  return host;
}

/// Seconds between two events around the work that `call` enqueues on the default stream.
template <class Call>
double device_seconds(Call const& call) {
  struct events {
    cudaEvent_t start, stop;
    events() { require(cudaEventCreate(&start)), require(cudaEventCreate(&stop)); }
    ~events() { cudaEventDestroy(start), cudaEventDestroy(stop); }
  };
  static events const e;
  require(cudaEventRecord(e.start));
  call();
  require(cudaGetLastError());
  require(cudaEventRecord(e.stop));
  require(cudaEventSynchronize(e.stop));
  float milliseconds = 0;
  require(cudaEventElapsedTime(&milliseconds, e.start, e.stop));
  return milliseconds * 1e-3;
}

}  // namespace tcnca::bench
