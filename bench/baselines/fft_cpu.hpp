// MEGA's EMA as an FFT convolution on the CPU, as frameworks compute it, with FFTW: y = irfft(rfft(x, 2L) rfft(kappa,
// 2L))[:L] in fp32.
//
// Layout [batch, channels, length], which suits the FFT. Each thread has some of the channels; it transforms the
// kernel of a channel once and then processes the rows of the batch one by one, so that spectra stay in its cache.
// Forward includes the kernel's transform, because the kernel changes with every training step, and with a generated
// kernel its generation from the EMA's parameters. Backward uses the spectra of x and of the kernel, as autograd
// saves them; this is faster than transforming again, and saving them is not timed. Conversions from and to bf16 are
// fused into the copies.
#pragma once
#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "../support/buffer.hpp"
#include "../support/convert.hpp"
#include "ema_kernel.hpp"
#include "fft_transform.hpp"

namespace tcnca::bench {

template <class Transform>
class fft_recurrence {
 public:
  fft_recurrence(index_t batch, index_t channels, index_t length, int threads)
      : batch_(batch),
        channels_(channels),
        length_(length),
        threads_(threads),
        transform_(std::make_shared<Transform>(length)),
        scratch_(static_cast<size_t>(threads)) {
    size_t const row = round(transform_->row_floats() + 4 * lanes), spectrum = round(transform_->spectrum_floats());
    for (auto& s : scratch_)
      s = {buffer<float>(row), buffer<float>(row), buffer<float>(spectrum), buffer<float>(spectrum),
           buffer<float>(spectrum)};
  }

  /// y = kappa * x, kernel given: kappa [channels, length].
  template <class T>
  void forward(T const* x, float const* kappa, T* y) {
    each_channel([&](index_t c, scratch& s) {
      forward_channel(x, y, c, s, [&](float* row) { std::copy_n(kappa + c * length_, length_, row); });
    });
  }
  /// y = kappa * x, kernel generated.
  template <class T>
  void forward(T const* x, ema_parameters const& parameters, T* y) {
    each_channel([&](index_t c, scratch& s) {
      forward_channel(x, y, c, s, [&](float* row) {
        generate_kernel(ema_channel(parameters, c), row, length_);
        std::fill_n(row + length_, 4 * lanes, 0.f);
      });
    });
  }

  /// Saves the spectra of x and kappa for backward.
  template <class T>
  void save(T const* x, float const* kappa) {
    size_t const n = stride();
    saved_ = buffer<float>(n * static_cast<size_t>(batch_ * channels_));
    kernels_ = buffer<float>(n * static_cast<size_t>(channels_));
    each_channel([&](index_t c, scratch& s) {
      std::copy_n(kappa + c * length_, length_, s.in.data());
      transform_->forward(s.in.data(), kernels_.data() + static_cast<size_t>(c) * n);
      for (index_t b = 0; b < batch_; b++) {
        widen(s.in.data(), x + row(b, c), length_);
        transform_->forward(s.in.data(), saved(b, c));
      }
    });
  }

  /// grad_x, and grad_kappa [channels, length] summed over the batch; call save() before.
  template <class T>
  void backward(T const* grad_y, T* grad_x, float* grad_kappa) {
    each_channel([&](index_t c, scratch& s) {
      backward_channel(grad_y, grad_x, c, s);
      narrow(grad_kappa + c * length_, s.out.data(), scale(), length_);
    });
  }
  /// grad_x, and the gradients of the EMA's parameters; call save() before, with the kernel that they generate.
  template <class T>
  void backward(T const* grad_y, T* grad_x, ema_parameters const& parameters, ema_parameters& grad) {
    each_channel([&](index_t c, scratch& s) {
      backward_channel(grad_y, grad_x, c, s);
      narrow(s.out.data(), s.out.data(), scale(), length_);
      differentiate_kernel(parameters, c, s.out.data(), length_, grad);
    });
  }

 private:
  struct scratch {
    buffer<float> in;   ///< a row; its second half stays zero, because the transforms preserve their input
    buffer<float> out;  ///< a row after the inverse transform
    buffer<float> spectrum, kernel, sum;
  };
  static size_t round(size_t n) { return (n + 31) / 32 * 32 + 16; }  // not a power of two: fewer cache conflicts
  index_t row(index_t b, index_t c) const { return (b * channels_ + c) * length_; }
  /// Stride between saved spectra in floats: FFTW needs the same alignment for all.
  size_t stride() const { return (transform_->spectrum_floats() + 31) / 32 * 32; }
  float* saved(index_t b, index_t c) { return saved_.data() + static_cast<size_t>(b * channels_ + c) * stride(); }
  float scale() const {
    return 1.f / static_cast<float>(std::is_same_v<Transform, real_transform> ? 2 * length_ : length_);
  }

  template <class Body>
  void each_channel(Body const& body) {
#pragma omp parallel for schedule(static) num_threads(threads_)
    for (index_t c = 0; c < channels_; c++) body(c, scratch_[static_cast<size_t>(thread())]);
  }
  static int thread() {
#if defined(_OPENMP)
    return omp_get_thread_num();
#else
    return 0;
#endif
  }

  template <class T, class Kernel>
  void forward_channel(T const* x, T* y, index_t c, scratch& s, Kernel const& write_kernel) {
    write_kernel(s.in.data());
    transform_->forward(s.in.data(), s.kernel.data());
    for (index_t b = 0; b < batch_; b++) {
      widen(s.in.data(), x + row(b, c), length_);
      transform_->forward(s.in.data(), s.spectrum.data());
      transform_->convolve(s.spectrum.data(), s.kernel.data());
      transform_->inverse(s.spectrum.data(), s.out.data());
      narrow(y + row(b, c), s.out.data(), scale(), length_);
    }
  }
  /// Leaves grad_kappa, unscaled, in s.out.
  template <class T>
  void backward_channel(T const* grad_y, T* grad_x, index_t c, scratch& s) {
    float const* const kernel = kernels_.data() + static_cast<size_t>(c) * stride();
    for (index_t b = 0; b < batch_; b++) {
      widen(s.in.data(), grad_y + row(b, c), length_);
      transform_->forward(s.in.data(), s.spectrum.data());
      transform_->correlate(s.sum.data(), s.spectrum.data(), saved(b, c), b > 0);
      transform_->correlate(s.spectrum.data(), s.spectrum.data(), kernel, false);
      transform_->inverse(s.spectrum.data(), s.out.data());
      narrow(grad_x + row(b, c), s.out.data(), scale(), length_);
    }
    transform_->inverse(s.sum.data(), s.out.data());
  }

  index_t batch_, channels_, length_;
  int threads_;
  std::shared_ptr<Transform const> transform_;
  std::vector<scratch> scratch_;
  buffer<float> saved_, kernels_;
};

}  // namespace tcnca::bench
