// What an average by FFT works on, on any machine.
#pragma once
#include <tcnca/core/config.hpp>
#include <tcnca/core/executor.hpp>

namespace tcnca::models {

/// y = silu(kappa * x + omega x), or without omega y = kappa * x, for x and y [batch, length, channels].
template <class T>
struct fft_problem {
  index_t batch = 0, channels = 0, length = 0;
  bool bidirectional = false;
  T const* omega = nullptr;     ///< [channels], optional
  T* spectra = nullptr;         ///< of x, written by forward and read by backward
  T* kernel_spectra = nullptr;  ///< of kappa, likewise
  T* before = nullptr;          ///< what silu was taken of, likewise; only with omega
  void* scratch = nullptr;
};

/// Where E computes; kappa is [channels, length], bidirectional [2 channels, length], the causal ones first. Its static members are
///   spectra_count(batch, channels, length), kernel_spectra_count(channels, length): elements, which grow with the extents;
///   scratch_bytes(e, problem): of workspace;
///   prepare(e, problem): plans, so that no step must;
///   forward(e, problem, x, kappa, y);
///   backward(e, problem, x, grad_y, grad_x, grad_kappa, grad_omega): the last two are sums over the batch; grad_omega is null without omega.
template <class T, class E>
struct fft_convolution;

}  // namespace tcnca::models
