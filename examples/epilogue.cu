// The update gate as the epilogue of a matrix product: y = x + sigmoid(u) (silu(hx + a w) - x) straight from the accumulators, so that a w never
// goes through memory. gate::update takes packs of any width; an epilogue visitor of another library's product calls it on its fragments alike.
#include <tcnca/block/gate.hpp>

#include <cmath>
#include <cstdio>
#include <vector>

static constexpr int rows = 64, inner = 48, columns = 64, threads = 256;

struct layer {
  float const *a, *w, *x, *u, *hx;  // [rows, inner], [inner, columns], [rows, columns]
  float* y;
};

/// One element of the product, and its epilogue.
TCNCA_HOST_DEVICE void fused_product(layer const& l, int i) {
  int const row = i / columns, column = i % columns;
  float sum = 0;
  for (int k = 0; k < inner; k++) sum += l.a[row * inner + k] * l.w[k * columns + column];
  using tcnca::broadcast;
  auto const h = broadcast<1>(l.hx[i]) + broadcast<1>(sum);
  l.y[i] = tcnca::gate::update(broadcast<1>(l.x[i]), broadcast<1>(l.u[i]), h, broadcast<1>(1.f)).lane(0);
}
__global__ void fused_kernel(layer l) { fused_product(l, int(blockIdx.x) * threads + int(threadIdx.x)); }

int main() {
  constexpr int small = rows * inner, middle = inner * columns, large = rows * columns;
  std::vector<float> numbers(small + middle + 4 * large);
  for (std::size_t i = 0; i < numbers.size(); i++) numbers[i] = float(i * 7919 % 1009) / 504 - 1;
  auto const at = [](float* p) {
    float *const x = p + small + middle, *const u = x + large, *const hx = u + large, *const y = hx + large;
    return layer{p, p + small, x, u, hx, y};
  };
  layer const host = at(numbers.data());
  for (int i = 0; i < large; i++) fused_product(host, i);
  std::printf("CPU: y[100] = %g\n", host.y[100]);

  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("there is no CUDA device: the kernel was compiled, but not run\n");
    return 0;
  }
  float* d = nullptr;
  if (cudaMallocManaged(&d, numbers.size() * sizeof(float)) != cudaSuccess) return 1;
  for (std::size_t i = 0; i < numbers.size(); i++) d[i] = numbers[i];
  layer const device = at(d);
  for (int i = 0; i < large; i++) device.y[i] = NAN;
  fused_kernel<<<large / threads, threads>>>(device);
  if (cudaDeviceSynchronize() != cudaSuccess) return 1;
  float worst = 0;
  for (int i = 0; i < large; i++) worst = std::fmax(worst, std::fabs(device.y[i] - host.y[i]));
  std::printf("GPU: y[100] = %g, largest difference %g\n", device.y[100], worst);
  return worst < 1e-5f ? 0 : 1;
}
