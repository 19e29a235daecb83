// Generation of the EMA's convolution kernel and its gradient on a CUDA GPU, for the FFT baseline with a generated
// kernel.
#pragma once
#include <vector>

#include "../support/cuda.cuh"
#include "ema_parameters.hpp"

namespace tcnca::bench {

namespace detail {
/// A state contributes scale * 2^(log_decay * l) to kappa[l]; `factor` is sqrt(1 / states).
struct ema_state {
  float scale, log_decay, decay, p, a, factor;
};
__device__ __forceinline__ ema_state ema_state_of(float delta, float alpha, float beta, float gamma, int states) {
  ema_state s;
  s.p = 1 / (1 + expf(-delta)), s.a = 1 / (1 + expf(-alpha));
  s.decay = 1 - s.p * s.a;
  s.log_decay = log1pf(-s.p * s.a) * 1.4426950408889634f;
  s.factor = rsqrtf(static_cast<float>(states));
  s.scale = gamma * s.factor * s.p * beta;
  return s;
}

/// kappa[c, l]: blockIdx.x is a block of positions, blockIdx.y the channel. A thread computes four consecutive
/// positions, so that there is one exponential per four powers.
__global__ void generate_kernel(float* kappa, float const* delta, float const* alpha, float const* beta,
                                float const* gamma, int states, index_t length) {
  extern __shared__ float2 shared[];  // [states] scale and log_decay, then [states] decay
  float* const decay = reinterpret_cast<float*>(shared + states);
  for (int n = static_cast<int>(threadIdx.x); n < states; n += static_cast<int>(blockDim.x)) {
    int const i = static_cast<int>(blockIdx.y) * states + n;
    ema_state const s = ema_state_of(delta[i], alpha[i], beta[i], gamma[i], states);
    shared[n] = {s.scale, s.log_decay}, decay[n] = s.decay;
  }
  __syncthreads();
  index_t const first = (static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 4;
  float sum[4] = {};
  for (int n = 0; n < states; n++) {
    float v = shared[n].x * exp2f(shared[n].y * static_cast<float>(first));
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] += v, v *= decay[n];
  }
#pragma unroll
  for (int j = 0; j < 4; j++)
    if (first + j < length) kappa[blockIdx.y * length + first + j] = sum[j];
}

/// One block per channel and state; it sums over all positions in a fixed order.
__global__ void differentiate_kernel(float const* grad_kappa, float const* delta, float const* alpha, float const* beta,
                                     float const* gamma, int states, index_t length, float* grad_delta,
                                     float* grad_alpha, float* grad_beta, float* grad_gamma) {
  constexpr int threads = 256;
  __shared__ float power_sum[threads], moment[threads];
  int const i = static_cast<int>(blockIdx.y) * states + static_cast<int>(blockIdx.x),
            rank = static_cast<int>(threadIdx.x);
  ema_state const s = ema_state_of(delta[i], alpha[i], beta[i], gamma[i], states);
  float of_scale = 0, of_log = 0;
  for (index_t l = rank; l < length; l += threads) {
    float const v = grad_kappa[blockIdx.y * length + l] * exp2f(s.log_decay * static_cast<float>(l));
    of_scale += v, of_log += v * static_cast<float>(l);
  }
  power_sum[rank] = of_scale, moment[rank] = of_log;
  for (int half = threads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (rank < half) power_sum[rank] += power_sum[rank + half], moment[rank] += moment[rank + half];
  }
  if (rank != 0) return;
  float const of_decay = s.scale * moment[0] / s.decay;
  grad_gamma[i] = power_sum[0] * s.factor * s.p * beta[i];
  grad_beta[i] = power_sum[0] * s.factor * s.p * gamma[i];
  grad_delta[i] = (power_sum[0] * s.factor * beta[i] * gamma[i] - of_decay * s.a) * s.p * (1 - s.p);
  grad_alpha[i] = -of_decay * s.p * s.a * (1 - s.a);
}
}  // namespace detail

/// The EMA's parameters and their gradients in device memory.
class ema_on_device {
 public:
  explicit ema_on_device(ema_parameters const& from) : channels_(from.channels), states_(from.states) {
    std::vector<float> const* const parts[] = {&from.delta, &from.alpha, &from.beta, &from.gamma};
    for (int i = 0; i < 4; i++) {
      value_[i] = *parts[i];
      grad_[i].resize(from.count());
    }
  }
  void generate(float* kappa, index_t length) const {
    dim3 const grid(static_cast<unsigned>((length + 1023) / 1024), static_cast<unsigned>(channels_));
    detail::generate_kernel<<<grid, 256, static_cast<size_t>(states_) * 3 * sizeof(float)>>>(
        kappa, raw(value_[0]), raw(value_[1]), raw(value_[2]), raw(value_[3]), states_, length);
  }
  void differentiate(float const* grad_kappa, index_t length) {
    dim3 const grid(static_cast<unsigned>(states_), static_cast<unsigned>(channels_));
    detail::differentiate_kernel<<<grid, 256>>>(grad_kappa, raw(value_[0]), raw(value_[1]), raw(value_[2]),
                                                raw(value_[3]), states_, length, raw(grad_[0]), raw(grad_[1]),
                                                raw(grad_[2]), raw(grad_[3]));
  }
  /// grad_delta, grad_alpha, grad_beta and grad_gamma, concatenated.
  std::vector<float> gradients() const {
    std::vector<float> all;
    for (auto const& g : grad_) {
      auto const part = to_host(g);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }

 private:
  index_t channels_;
  int states_;
  thrust::device_vector<float> value_[4], grad_[4];
};

}  // namespace tcnca::bench
