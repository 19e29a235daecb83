// A kernel of your own that uses the block level of the library: one dilated convolution over a tile in shared memory,
// followed by arithmetic of its own (here the absolute value). The same function runs on the CPU with a group of one
// thread.
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>
#include <tcnca/block/dilated.hpp>
#include <tcnca/block/group.hpp>

#include <cmath>
#include <cstdio>

static constexpr int taps = 5, dilation = 8, history = (taps - 1) * dilation, tile = 1024, threads = 128;
static constexpr int samples = tcnca::power_of_two(history + tile);

/// y[t] = |sum over k of weight[k] x[t - k dilation]| for one tile, with x = 0 before the tile. Called by all threads
/// of the group; `shared` has `samples` elements.
template <class Group>
TCNCA_HOST_DEVICE void absolute_convolution(Group group, float* shared, float const* x, float const* weight, float* y) {
  constexpr tcnca::lanes lanes{};  // one position per pack
  tcnca::ring<float, lanes> const ring{shared, samples - 1};
  for (int t = group.rank() - history; t < tile; t += group.size())
    ring.store_sample(tcnca::uint32(t), 0, t < 0 ? 0.f : x[t]);
  group.sync();
  tcnca::dilated_taps<float> const w{weight, 1, nullptr};
  tcnca::dilated_tile const whole{0, tile, 0, dilation, 0, taps};
  tcnca::dilated_sum<taps, 4>(group, ring, w, whole, [&](int t, int, auto sum) { y[t] = std::fabs(sum.lane(0)); });
}

__global__ void own_kernel(float const* x, float const* weight, float* y) {
  __shared__ float shared[samples];
  absolute_convolution(tcnca::block_group<threads>{}, shared, x, weight, y);
}

int main() {
  float const weights[taps] = {0.5f, -1, 0.25f, 2, -0.125f};
  thrust::host_vector<float> x(tile), y(tile), weight(weights, weights + taps), memory(samples);
  for (int t = 0; t < tile; t++) x[t] = float(t % 17) - 8;
  absolute_convolution(tcnca::serial_group{}, memory.data(), x.data(), weight.data(), y.data());
  std::printf("CPU: y[100] = %g\n", y[100]);

  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device: the kernel was compiled, but not run\n");
    return 0;
  }
  thrust::device_vector<float> const device_x = x, device_weight = weight;
  thrust::device_vector<float> device_y(tile, NAN);
  own_kernel<<<1, threads>>>(device_x.data().get(), device_weight.data().get(), device_y.data().get());
  if (cudaGetLastError() != cudaSuccess) return 1;
  thrust::host_vector<float> const result = device_y;  // waits for the kernel
  float error = 0;
  for (int t = 0; t < tile; t++) error = std::fmax(error, std::fabs(result[t] - y[t]));
  std::printf("GPU: y[100] = %g, largest difference %g\n", result[100], error);
  return error < 1e-5f && std::isfinite(result[tile - 1]) ? 0 : 1;
}
