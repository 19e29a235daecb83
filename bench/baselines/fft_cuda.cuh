// The EMA as an FFT convolution on a CUDA GPU: y = irfft(rfft(x, 2L) * rfft(kappa, 2L))[:L] in fp32, in the steps
// that frameworks execute, with cuFFT: pad (and cast), R2C of all rows, multiply (the batch shares the kernel's
// spectrum), C2R, slice (scale and cast).
//
// Layout [batch, channels, length]. As on the CPU, forward includes the transform of the kernel, and its generation
// where it is generated; backward uses the saved spectra of x and of the kernel.
#pragma once
#include <cufft.h>

#include "../support/convert.hpp"
#include "../support/cuda.cuh"
#include "ema_device.cuh"

namespace tcnca::bench {

inline void require(cufftResult r) {
  if (r != CUFFT_SUCCESS)
    throw std::runtime_error("A cuFFT call failed with error " + std::to_string(static_cast<int>(r)) + ".");
}

/// Batched real transforms of `rows` rows of 2L points.
class cufft_rows {
 public:
  cufft_rows(index_t rows, index_t length)
      : forward_(make(rows, length, CUFFT_R2C)), inverse_(make(rows, length, CUFFT_C2R)) {}
  cufft_rows(cufft_rows const&) = delete;
  cufft_rows& operator=(cufft_rows const&) = delete;
  ~cufft_rows() { cufftDestroy(forward_), cufftDestroy(inverse_); }
  void forward(float* rows, cufftComplex* spectra) const { require(cufftExecR2C(forward_, rows, spectra)); }
  void inverse(cufftComplex* spectra, float* rows) const { require(cufftExecC2R(inverse_, spectra, rows)); }

 private:
  static cufftHandle make(index_t rows, index_t length, cufftType type) {
    cufftHandle plan;
    require(cufftCreate(&plan));
    long long n = 2 * length, bins = length + 1;
    size_t bytes = 0;
    bool const real_input = type == CUFFT_R2C;
    require(cufftMakePlanMany64(plan, 1, &n, &n, 1, real_input ? n : bins, &n, 1, real_input ? bins : n, type, rows,
                                &bytes));
    return plan;
  }
  cufftHandle forward_, inverse_;
};

namespace detail {
/// gridDim.x covers positions, gridDim.y rows.
inline dim3 row_grid(index_t positions, index_t rows) {
  return {static_cast<unsigned>((positions + 255) / 256), static_cast<unsigned>(rows), 1};
}

template <class T>
__global__ void pad_rows(float* to, T const* from, index_t length) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < 2 * length) to[blockIdx.y * 2 * length + i] = i < length ? to_float(from[blockIdx.y * length + i]) : 0.f;
}
template <class T>
__global__ void slice_rows(T* to, float const* from, float scale, index_t length) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < length) to[blockIdx.y * length + i] = from_float<T>(scale * from[blockIdx.y * 2 * length + i]);
}
/// a[row] *= b[row % channels], or its conjugate.
__global__ void multiply_rows(cufftComplex* a, cufftComplex const* b, index_t bins, index_t channels, bool conjugate) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= bins) return;
  cufftComplex const u = a[blockIdx.y * bins + i], v = b[blockIdx.y % channels * bins + i];
  float const im = conjugate ? -v.y : v.y;
  a[blockIdx.y * bins + i] = {u.x * v.x - u.y * im, u.x * im + u.y * v.x};
}
/// sum[c] = sum over the batch of a[b, c] conj(x[b, c])
__global__ void correlate_batch(cufftComplex* sum, cufftComplex const* a, cufftComplex const* x, index_t bins,
                                index_t channels, index_t batch) {
  index_t const i = static_cast<index_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= bins) return;
  cufftComplex s = {0, 0};
  for (index_t b = 0; b < batch; b++) {
    cufftComplex const u = a[(b * channels + blockIdx.y) * bins + i], v = x[(b * channels + blockIdx.y) * bins + i];
    s.x += u.x * v.x + u.y * v.y;
    s.y += u.y * v.x - u.x * v.y;
  }
  sum[blockIdx.y * bins + i] = s;
}
}  // namespace detail

class fft_recurrence_cuda {
 public:
  fft_recurrence_cuda(index_t batch, index_t channels, index_t length)
      : batch_(batch),
        channels_(channels),
        length_(length),
        bins_(length + 1),
        rows_(batch * channels, length),
        kernel_rows_(channels, length),
        padded_(count(batch * channels * 2 * length)),
        padded_kernel_(count(channels * 2 * length)),
        kappa_(count(channels * length)),
        spectra_(count(batch * channels * bins_)),
        kernel_spectra_(count(channels * bins_)) {}

  template <class T>
  void forward(T const* x, float const* kappa, T* y) {
    transform_kernel(kappa, raw(kernel_spectra_));
    transform_rows(x, raw(spectra_));
    detail::multiply_rows<<<detail::row_grid(bins_, rows()), 256>>>(raw(spectra_), raw(kernel_spectra_), bins_,
                                                                    channels_, false);
    back_to_rows(y);
  }
  template <class T>
  void forward(T const* x, ema_on_device const& ema, T* y) {
    ema.generate(raw(kappa_), length_);
    forward(x, raw(kappa_), y);
  }
  template <class T>
  void save(T const* x, float const* kappa) {
    saved_.resize(count(rows() * bins_));
    saved_kernel_.resize(count(channels_ * bins_));
    transform_rows(x, raw(saved_));
    transform_kernel(kappa, raw(saved_kernel_));
  }
  template <class T>
  void backward(T const* grad_y, T* grad_x, float* grad_kappa) {
    transform_rows(grad_y, raw(spectra_));
    detail::correlate_batch<<<detail::row_grid(bins_, channels_), 256>>>(raw(kernel_spectra_), raw(spectra_),
                                                                         raw(saved_), bins_, channels_, batch_);
    detail::multiply_rows<<<detail::row_grid(bins_, rows()), 256>>>(raw(spectra_), raw(saved_kernel_), bins_, channels_,
                                                                    true);
    back_to_rows(grad_x);
    kernel_rows_.inverse(raw(kernel_spectra_), raw(padded_kernel_));
    detail::slice_rows<<<detail::row_grid(length_, channels_), 256>>>(grad_kappa, raw(padded_kernel_), scale(),
                                                                      length_);
  }
  template <class T>
  void backward(T const* grad_y, T* grad_x, ema_on_device& ema) {
    backward(grad_y, grad_x, raw(kappa_));
    ema.differentiate(raw(kappa_), length_);
  }

 private:
  static size_t count(index_t n) { return static_cast<size_t>(n); }
  index_t rows() const { return batch_ * channels_; }
  float scale() const { return 1.f / static_cast<float>(2 * length_); }
  template <class T>
  void transform_rows(T const* x, cufftComplex* spectra) {
    detail::pad_rows<<<detail::row_grid(2 * length_, rows()), 256>>>(raw(padded_), x, length_);
    rows_.forward(raw(padded_), spectra);
  }
  void transform_kernel(float const* kappa, cufftComplex* spectra) {
    detail::pad_rows<<<detail::row_grid(2 * length_, channels_), 256>>>(raw(padded_kernel_), kappa, length_);
    kernel_rows_.forward(raw(padded_kernel_), spectra);
  }
  template <class T>
  void back_to_rows(T* y) {
    rows_.inverse(raw(spectra_), raw(padded_));
    detail::slice_rows<<<detail::row_grid(length_, rows()), 256>>>(y, raw(padded_), scale(), length_);
  }

  index_t batch_, channels_, length_, bins_;
  cufft_rows rows_, kernel_rows_;
  thrust::device_vector<float> padded_, padded_kernel_, kappa_;
  thrust::device_vector<cufftComplex> spectra_, kernel_spectra_, saved_, saved_kernel_;
};

}  // namespace tcnca::bench
