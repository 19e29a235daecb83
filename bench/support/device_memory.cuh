// Device memory, errors and time for the benchmarks on CUDA.
#pragma once
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <tcnca/core/config.hpp>

namespace tcnca::bench {

inline void require(cudaError_t e) {
  if (e != cudaSuccess) throw std::runtime_error(std::string("A call of CUDA failed: ") + cudaGetErrorString(e) + ".");
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
  explicit device_memory(tcnca::size count) : count_(count) {
    if (count == 0) return;
    require(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T)));
    require(cudaMemset(data_, 0, count * sizeof(T)));
  }
  device_memory(device_memory&& other) noexcept { swap(other); }
  device_memory& operator=(device_memory&& other) noexcept {
    device_memory(std::move(other)).swap(*this);
    return *this;
  }
  ~device_memory() { cudaFree(data_); }

  T* data() { return data_; }
  T const* data() const { return data_; }
  tcnca::size size() const { return count_; }

  void write(std::vector<T> const& from) {
    require(cudaMemcpy(data_, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  std::vector<T> read() const {
    std::vector<T> to(count_);
    require(cudaMemcpy(to.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
  }

 private:
  void swap(device_memory& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
  }
  T* data_ = nullptr;
  tcnca::size count_ = 0;
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
