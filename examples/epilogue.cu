// The update gate as the epilogue of a matrix product: y = x + sigmoid(u) (silu(hx + a w) - x) computed from the
// accumulators, so that the product a w never goes to memory. gate::update takes packs of any width; an epilogue of
// another GEMM library can call it on its fragments.
#include <thrust/device_vector.h>
#include <thrust/host_vector.h>
#include <tcnca/block/gate.hpp>

#include <cmath>
#include <cstdio>

static constexpr int rows = 64, inner = 48, columns = 64, threads = 256;
static constexpr int a_size = rows * inner, w_size = inner * columns, size = rows * columns;

/// One array holds all inputs, in this order.
struct layer {
  float const *a, *w, *x, *u, *hx;  // [rows, inner], [inner, columns], [rows, columns] each
  float* y;

  layer(float const* inputs, float* output)
      : a(inputs), w(a + a_size), x(w + w_size), u(x + size), hx(u + size), y(output) {}
};

/// One element of the product, with its epilogue.
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
  thrust::host_vector<float> inputs(a_size + w_size + 3 * size), expected(size);
  for (std::size_t i = 0; i < inputs.size(); i++) inputs[i] = float(i * 7919 % 1009) / 504 - 1;
  layer const host(inputs.data(), expected.data());
  for (int i = 0; i < size; i++) fused_product(host, i);
  std::printf("CPU: y[100] = %g\n", expected[100]);

  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("no CUDA device: the kernel was compiled, but not run\n");
    return 0;
  }
  thrust::device_vector<float> const device_inputs = inputs;
  thrust::device_vector<float> y(size, NAN);
  fused_kernel<<<size / threads, threads>>>(layer(device_inputs.data().get(), y.data().get()));
  if (cudaGetLastError() != cudaSuccess) return 1;
  thrust::host_vector<float> const result = y;  // waits for the kernel
  float error = 0;
  for (int i = 0; i < size; i++) error = std::fmax(error, std::fabs(result[i] - expected[i]));
  std::printf("GPU: y[100] = %g, largest difference %g\n", result[100], error);
  return error < 1e-5f && std::isfinite(result[size - 1]) ? 0 : 1;
}
