// A CUDA GPU as a Device: Thrust vectors, and time between events on the default stream.
#pragma once
#include <algorithm>
#include <vector>

#include <tcnca/core/executor.hpp>
#include "convert.hpp"
#include "cuda.cuh"

namespace tcnca::bench {

struct cuda_device {
  cuda executor;

  template <class T>
  using memory = thrust::device_vector<T>;

  template <class T>
  static T* data(thrust::device_vector<T>& m) {
    return raw(m);
  }
  template <class Call>
  static double time(Call const& call) {
    return device_seconds(call);
  }
  template <class T>
  static void write(thrust::device_vector<T>& to, std::vector<T> const& from) {
    thrust::copy(from.begin(), from.end(), to.begin());
  }
  template <class T>
  static std::vector<float> read(T const* from, size_t count) {
    std::vector<T> raw_values(count);
    require(cudaMemcpy(raw_values.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
    std::vector<float> to(count);
    std::transform(raw_values.begin(), raw_values.end(), to.begin(), [](T v) { return to_float(v); });
    return to;
  }
};

}  // namespace tcnca::bench
