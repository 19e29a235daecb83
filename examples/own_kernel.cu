// A kernel of your own that uses the block level of the library: one dilated convolution over a tile that the kernel has put in shared
// memory, followed by arithmetic of its own (here the absolute value). The same function runs on the CPU with a group of one.
#include <tcnca/block/dilated.hpp>
#include <tcnca/block/group.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

static constexpr int taps = 5, dilation = 8, history = (taps - 1) * dilation, tile = 1024, threads = 128;
static constexpr int samples = tcnca::power_of_two(history + tile);

/// y[t] = |sum_k weight[k] x[t - k dilation]|, x zero before 0, for one tile by one group with samples floats of fast memory.
template <class Group>
TCNCA_HOST_DEVICE void absolute_convolution(Group group, float* memory, float const* x, float const* weight, float* y) {
  constexpr tcnca::lanes lanes{};  // one position a pack
  tcnca::ring<float, lanes> const ring{memory, samples - 1};
  for (int t = group.rank() - history; t < tile; t += group.size())
    ring.store_sample(tcnca::uint32(t), 0, t < 0 ? 0.f : x[t]);
  group.sync();
  tcnca::dilated_taps<float> const w{weight, 1, nullptr};
  tcnca::dilated_tile const whole{0, tile, 0, dilation, 0, taps};
  tcnca::dilated_sum<taps, 4>(group, ring, w, whole, [&](int t, int, auto sum) { y[t] = std::fabs(sum.lane(0)); });
}

__global__ void own_kernel(float const* x, float const* weight, float* y) {
  __shared__ float memory[samples];
  absolute_convolution(tcnca::block_group<threads>{}, memory, x, weight, y);
}

int main() {
  std::vector<float> x(tile), y(tile), weight{0.5f, -1, 0.25f, 2, -0.125f}, memory(samples);
  for (int t = 0; t < tile; t++) x[t] = float(t % 17) - 8;
  absolute_convolution(tcnca::serial_group{}, memory.data(), x.data(), weight.data(), y.data());
  std::printf("CPU: y[100] = %g\n", y[100]);

  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("there is no CUDA device: the kernel was compiled, but not run\n");
    return 0;
  }
  float* d = nullptr;
  if (cudaMallocManaged(&d, (2 * tile + taps) * sizeof(float)) != cudaSuccess) return 1;
  for (int t = 0; t < tile; t++) d[t] = x[t];
  for (int k = 0; k < taps; k++) d[2 * tile + k] = weight[k];
  own_kernel<<<1, threads>>>(d, d + 2 * tile, d + tile);
  if (cudaDeviceSynchronize() != cudaSuccess) return 1;
  float worst = 0;
  for (int t = 0; t < tile; t++) worst = std::fmax(worst, std::fabs(d[tile + t] - y[t]));
  std::printf("GPU: y[100] = %g, largest difference %g\n", d[tile + 100], worst);
  return worst < 1e-5f ? 0 : 1;
}
