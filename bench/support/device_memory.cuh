// Device memory, errors and time for the benchmarks on CUDA.
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
  if (e != cudaSuccess) throw std::runtime_error(std::string("A call of CUDA failed: ") + cudaGetErrorString(e) + ".");
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

/// An owning array on the device, zeroed.
template <class T>
class device_memory {
 public:
  device_memory() = default;
  explicit device_memory(tcnca::size_t count) : values_(count) {}

  T* data() { return thrust::raw_pointer_cast(values_.data()); }
  T const* data() const { return thrust::raw_pointer_cast(values_.data()); }
  tcnca::size_t size() const { return values_.size(); }

  void write(std::vector<T> const& from) { thrust::copy(from.begin(), from.end(), values_.begin()); }
  std::vector<T> read() const {
    std::vector<T> to(size());
    thrust::copy(values_.begin(), values_.end(), to.begin());
    return to;
  }

 private:
  thrust::device_vector<T> values_;
};

/// Seconds between two events around what `call` enqueues on the default stream.
template <class Call>
double device_seconds(Call const& call) {
  struct events {
    cudaEvent_t from, to;
    events() { require(cudaEventCreate(&from)), require(cudaEventCreate(&to)); }
    ~events() { cudaEventDestroy(from), cudaEventDestroy(to); }
  };
  static events const e;
  require(cudaEventRecord(e.from));
  call();
  require(cudaGetLastError());
  require(cudaEventRecord(e.to));
  require(cudaEventSynchronize(e.to));
  float milliseconds = 0;
  require(cudaEventElapsedTime(&milliseconds, e.from, e.to));
  return milliseconds * 1e-3;
}

}  // namespace tcnca::bench
