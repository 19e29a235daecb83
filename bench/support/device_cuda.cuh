// A CUDA device as a Device: time between events on the default stream.
#pragma once
#include <algorithm>
#include <vector>

#include <tcnca/core/executor.hpp>
#include "../support/convert.hpp"
#include "../support/device_memory.cuh"

namespace tcnca::bench {

struct cuda_device {
  cuda executor;

  template <class T>
  using memory = device_memory<T>;

  template <class Call>
  static double time(Call const& call) {
    return device_seconds(call);
  }
  template <class T>
  static void write(T* to, std::vector<T> const& from) {
    require(cudaMemcpy(to, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  template <class T>
  static std::vector<float> read(T const* from, size_t count) {
    std::vector<T> raw(count);
    require(cudaMemcpy(raw.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
    std::vector<float> to(count);
    std::transform(raw.begin(), raw.end(), to.begin(), [](T v) { return to_float(v); });
    return to;
  }
};

}  // namespace tcnca::bench
