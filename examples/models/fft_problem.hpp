// Arguments of an EMA by FFT, for all executors.
#pragma once
#include <tcnca/core/config.hpp>
#include <tcnca/core/executor.hpp>

namespace tcnca::models {

/// y = silu(kappa * x + omega x), or y = kappa * x without omega, for x and y [batch, length, channels].
template <class T>
struct fft_problem {
  index_t batch = 0, channels = 0, length = 0;
  bool bidirectional = false;
  T const* omega = nullptr;     ///< [channels], optional
  T* spectra = nullptr;         ///< spectra of x; written by forward, read by backward
  T* kernel_spectra = nullptr;  ///< spectra of kappa; written by forward, read by backward
  T* before = nullptr;          ///< argument of silu, only with omega; written by forward, read by backward
  void* scratch = nullptr;
};

/// Specialized for each executor. kappa is [channels, length]; bidirectional: [2 channels, length], causal kernels
/// first. Static members:
///   spectra_count(batch, channels, length), kernel_spectra_count(channels, length): elements, monotonic in the extents
///   scratch_bytes(e, problem): workspace
///   prepare(e, problem): creates plans in advance
///   forward(e, problem, x, kappa, y)
///   backward(e, problem, x, grad_y, grad_x, grad_kappa, grad_omega): the last two are sums over the batch; grad_omega
///   is null without omega
template <class T, class E>
struct fft_convolution;

}  // namespace tcnca::models
