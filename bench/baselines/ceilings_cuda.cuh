// Ceilings of a CUDA GPU, measured in the same run: the fp32 FMA rate and the copy bandwidth.
#pragma once
#include <algorithm>
#include <map>

#include "../support/cuda.cuh"

namespace tcnca::bench {

namespace detail {
inline constexpr int cuda_fma_steps = 4096, cuda_fma_chains = 8;

/// Independent chains of FMAs in registers. The store never executes; it keeps the compiler from removing the loop.
__global__ void cuda_fma_loop(float* out, float m, float c) {
  float v[cuda_fma_chains];
#pragma unroll
  for (int j = 0; j < cuda_fma_chains; j++) v[j] = c + static_cast<float>(j);
  for (int i = 0; i < cuda_fma_steps; i++) {
#pragma unroll
    for (int j = 0; j < cuda_fma_chains; j++) v[j] = fmaf(v[j], m, c);
  }
  float sum = 0;
#pragma unroll
  for (int j = 0; j < cuda_fma_chains; j++) sum += v[j];
  if (sum == -1.f) out[threadIdx.x] = sum;
}

__global__ void cuda_copy_loop(uint4* to, uint4 const* from, size_t count) {
  size_t const step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) to[i] = from[i];
}
}  // namespace detail

class cuda_ceilings {
 public:
  cuda_ceilings() {
    require(cudaGetDevice(&device_));
    require(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, device_));
    thrust::device_vector<float> out(1024);
    int const blocks = processors_ * 8, threads = 256;
    for (int i = 0; i < 20; i++) {
      double const time = device_seconds([&] { detail::cuda_fma_loop<<<blocks, threads>>>(raw(out), 0.9999f, 0.5f); });
      fma_rate_ = std::max(fma_rate_, 2.0 * detail::cuda_fma_steps * detail::cuda_fma_chains * blocks * threads / time);
    }
  }
  double fma_rate() const { return fma_rate_; }

  /// Bytes read plus written per second by a copy of `moved_bytes` or by a large copy, whichever is faster.
  double copy_rate(size_t moved_bytes) {
    constexpr size_t large = size_t{2} << 30;
    return std::max(measured(std::min(moved_bytes, large)), measured(large));
  }

 private:
  double measured(size_t moved_bytes) {
    auto const [at, fresh] = rates_.try_emplace(moved_bytes, 0.0);
    if (!fresh) return at->second;
    size_t const part = std::max<size_t>(moved_bytes / 2 / 256 * 256, 256), count = part / sizeof(uint4);
    thrust::device_vector<unsigned char> from(part), to(part);
    double best = 1e300;
    for (int i = 0; i < 20; i++) {
      best = std::min(
          best, device_seconds([&] { require(cudaMemcpyAsync(raw(to), raw(from), part, cudaMemcpyDeviceToDevice)); }));
      best = std::min(best, device_seconds([&] {
                        detail::cuda_copy_loop<<<processors_ * 8, 512>>>(
                            reinterpret_cast<uint4*>(raw(to)), reinterpret_cast<uint4 const*>(raw(from)), count);
                      }));
    }
    return at->second = 2.0 * static_cast<double>(part) / best;
  }

  int device_ = 0, processors_ = 0;
  double fma_rate_ = 0;
  std::map<size_t, double> rates_;
};

/// The ceilings of this process; each is measured once.
inline cuda_ceilings& common_cuda_ceilings() {
  static cuda_ceilings ceilings;
  return ceilings;
}

}  // namespace tcnca::bench
