// MEGA's EMA as a convolution by FFT on a CUDA device (cuFFT), for activations [batch, length, channels].
#pragma once
#include <cufft.h>
#include <tcnca/block/activation.hpp>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <tuple>

#include "fft_kernels.cuh"
#include "fft_problem.hpp"

namespace tcnca::models {

/// cuFFT's real transforms of rows of 2 n elements with the same names for both types; a spectrum has n + 1 complex
/// numbers. Plans have no workspace of their own.
template <class T>
class cufft_rows {
 public:
  cufft_rows(index_t rows, index_t n) : forward_(make(rows, n, true)), inverse_(make(rows, n, false)) {}
  cufft_rows(cufft_rows const&) = delete;
  cufft_rows& operator=(cufft_rows const&) = delete;
  ~cufft_rows() { cufftDestroy(forward_), cufftDestroy(inverse_); }

  /// The plan for a number of rows. Created on first use and never destroyed, because the device may be gone by then.
  static cufft_rows const& of(index_t rows, index_t n) {
    static std::mutex one_plans;
    static auto* const plans = new std::map<std::tuple<int, index_t, index_t>, std::unique_ptr<cufft_rows>>;
    int device = 0;
    cudaGetDevice(&device);
    std::lock_guard const lock(one_plans);
    auto& plan = (*plans)[{device, rows, n}];
    if (!plan) plan = std::make_unique<cufft_rows>(rows, n);
    return *plan;
  }
  size_t bytes() const { return std::max(bytes(forward_), bytes(inverse_)); }
  void forward(cudaStream_t stream, void* scratch, T* rows, T* spectra) const {
    set(forward_, stream, scratch);
    if constexpr (sizeof(T) == 4) {
      check(cufftExecR2C(forward_, rows, reinterpret_cast<cufftComplex*>(spectra)));
    } else {
      check(cufftExecD2Z(forward_, rows, reinterpret_cast<cufftDoubleComplex*>(spectra)));
    }
  }
  /// Overwrites the spectra.
  void inverse(cudaStream_t stream, void* scratch, T* spectra, T* rows) const {
    set(inverse_, stream, scratch);
    if constexpr (sizeof(T) == 4) {
      check(cufftExecC2R(inverse_, reinterpret_cast<cufftComplex*>(spectra), rows));
    } else {
      check(cufftExecZ2D(inverse_, reinterpret_cast<cufftDoubleComplex*>(spectra), rows));
    }
  }

 private:
  static void check(cufftResult r) {
    if (r != CUFFT_SUCCESS) throw std::runtime_error("cuFFT failed with error " + std::to_string(int(r)));
  }
  static void set(cufftHandle plan, cudaStream_t stream, void* scratch) {
    check(cufftSetStream(plan, stream)), check(cufftSetWorkArea(plan, scratch));
  }
  static size_t bytes(cufftHandle plan) {
    size_t b = 0;
    check(cufftGetSize(plan, &b));
    return b;
  }
  static cufftHandle make(index_t rows, index_t n, bool forward) {
    cufftHandle plan;
    check(cufftCreate(&plan));
    check(cufftSetAutoAllocation(plan, 0));
    long long points = 2 * n, real = 2 * n, complex = n + 1;
    size_t bytes = 0;
    auto const type = sizeof(T) == 4 ? (forward ? CUFFT_R2C : CUFFT_C2R) : (forward ? CUFFT_D2Z : CUFFT_Z2D);
    check(cufftMakePlanMany64(plan, 1, &points, forward ? &real : &complex, 1, forward ? real : complex,
                              forward ? &complex : &real, 1, forward ? complex : real, type, rows, &bytes));
    return plan;
  }
  cufftHandle forward_, inverse_;
};

/// Step by step, as frameworks do: transpose channels into padded rows, transform, multiply, transform back, transpose
/// back. The spectra of x and of the kernel are stored for the backward pass.
template <class T>
struct fft_convolution<T, cuda> {
  static size_t spectra_count(index_t batch, index_t channels, index_t length) {
    return size_t(batch * channels * 2 * (points(length) + 1));
  }
  static size_t kernel_spectra_count(index_t channels, index_t length) { return spectra_count(1, channels, length); }
  static size_t scratch_bytes(cuda, fft_problem<T> const& p) {
    if (p.length * p.batch * p.channels == 0) return 0;
    places const s(p);
    return s.end + std::max(s.all.bytes(), s.kernels.bytes());
  }
  static void prepare(cuda e, fft_problem<T> const& p) { (void)scratch_bytes(e, p); }

  static void forward(cuda e, fft_problem<T> const& p, T const* x, T const* kappa, T* y) {
    if (p.length * p.batch * p.channels == 0) return;
    places const s(p);
    index_t const n = s.n, d = p.channels, bins = n + 1;
    detail::lay_out_kernel<<<blocks(d * 2 * n), threads, 0, e.stream>>>(kappa, s.rows, d, p.length, n, p.bidirectional);
    s.kernels.forward(e.stream, s.work, s.rows, p.kernel_spectra);
    detail::channels_to_rows<<<tiles(p, 2 * n), tile_threads, 0, e.stream>>>(x, static_cast<T const*>(nullptr), s.rows,
                                                                             p.length, d, 2 * n);
    s.all.forward(e.stream, s.work, s.rows, p.spectra);
    detail::multiply_rows<<<blocks(p.batch * d * bins), threads, 0, e.stream>>>(p.spectra, p.kernel_spectra, s.spectra,
                                                                                p.batch * d * bins, d * bins, false);
    s.all.inverse(e.stream, s.work, s.spectra, s.rows);
    detail::rows_to_output<<<tiles(p, p.length), tile_threads, 0, e.stream>>>(s.rows, x, p.omega, p.before, y, s.scale,
                                                                              p.length, d, 2 * n);
    launched();
  }
  static void backward(cuda e, fft_problem<T> const& p, T const* x, T const* grad_y, T* grad_x, T* grad_kappa,
                       T* grad_omega) {
    if (p.length * p.batch * p.channels == 0) return;
    places const s(p);
    index_t const n = s.n, d = p.channels, bins = n + 1;
    if (grad_omega != nullptr) {
      dim3 const grid(unsigned((d + 31) / 32), unsigned(segments));
      detail::sum_omega<<<grid, dim3(32, 8), 0, e.stream>>>(x, grad_y, p.before, s.partial, p.batch * p.length, d);
      detail::add_segments<<<blocks(d), threads, 0, e.stream>>>(s.partial, grad_omega, segments, d);
    }
    detail::channels_to_rows<<<tiles(p, 2 * n), tile_threads, 0, e.stream>>>(grad_y, static_cast<T const*>(p.before),
                                                                             s.rows, p.length, d, 2 * n);
    s.all.forward(e.stream, s.work, s.rows, s.spectra);
    detail::correlate_batch<<<blocks(d * bins), threads, 0, e.stream>>>(s.spectra, p.spectra, s.sums, p.batch,
                                                                        d * bins);
    detail::multiply_rows<<<blocks(p.batch * d * bins), threads, 0, e.stream>>>(s.spectra, p.kernel_spectra, s.spectra,
                                                                                p.batch * d * bins, d * bins, true);
    s.all.inverse(e.stream, s.work, s.spectra, s.rows);
    detail::rows_to_gradient<<<tiles(p, p.length), tile_threads, 0, e.stream>>>(s.rows, grad_y, p.omega, p.before,
                                                                                grad_x, s.scale, p.length, d, 2 * n);
    s.kernels.inverse(e.stream, s.work, s.sums, s.rows);
    detail::take_apart<<<blocks(d * p.length), threads, 0, e.stream>>>(s.rows, grad_kappa, s.scale, d, p.length, n,
                                                                       p.bidirectional);
    launched();
  }

 private:
  static constexpr unsigned threads = 256;
  static constexpr index_t segments = 64;
  static inline dim3 const tile_threads{32, 8};

  /// Points without large prime factors: the next of 4, 5, 6, 7 times a power of two.
  static index_t points(index_t length) {
    index_t unit = 1;
    while (7 * unit < length) unit *= 2;
    return length <= 4 ? length : (length + unit - 1) / unit * unit;
  }
  static unsigned blocks(index_t elements) { return unsigned((elements + threads - 1) / threads); }
  static dim3 tiles(fft_problem<T> const& p, index_t positions) {
    return {unsigned((positions + 31) / 32), unsigned((p.channels + 31) / 32), unsigned(p.batch)};
  }
  static void launched() {
    if (cudaError_t const e = cudaPeekAtLastError(); e != cudaSuccess)
      throw std::runtime_error(std::string("CUDA failed: ") + cudaGetErrorString(e));
  }

  /// Layout of the scratch memory.
  struct places {
    index_t const n;
    cufft_rows<T> const &all, &kernels;
    T const scale;
    T *rows = nullptr, *spectra = nullptr, *sums = nullptr, *partial = nullptr;
    void* work = nullptr;
    size_t end = 0;

    explicit places(fft_problem<T> const& p)
        : n(points(p.length)),
          all(cufft_rows<T>::of(p.batch * p.channels, n)),
          kernels(cufft_rows<T>::of(p.channels, n)),
          scale(T(1) / T(2 * n)) {
      auto const take = [&](index_t count) {
        size_t const at = end;
        end += (size_t(count) * sizeof(T) + 255) / 256 * 256;
        return p.scratch == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<char*>(p.scratch) + at);
      };
      rows = take(p.batch * p.channels * 2 * n), spectra = take(p.batch * p.channels * 2 * (n + 1)),
      sums = take(p.channels * 2 * (n + 1));
      partial = take(segments * p.channels);
      work = take(0);
    }
  };
};

}  // namespace tcnca::models
