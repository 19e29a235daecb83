// Circular convolutions of real sequences with FFTW, in fp32 and fp64.
#pragma once
#include <fftw3.h>

#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <numbers>
#include <vector>

#include "complex.hpp"

namespace tcnca::models {

/// FFTW's complex transforms with the same names for both types.
template <class T>
struct fftw;
template <>
struct fftw<float> {
  using plan = fftwf_plan;
  static plan make(int n, float* from, float* to, int sign) {
    return fftwf_plan_dft_1d(n, reinterpret_cast<fftwf_complex*>(from), reinterpret_cast<fftwf_complex*>(to), sign,
                             FFTW_MEASURE);
  }
  static void run(plan p, float* from, float* to) {
    fftwf_execute_dft(p, reinterpret_cast<fftwf_complex*>(from), reinterpret_cast<fftwf_complex*>(to));
  }
  static void destroy(plan p) { fftwf_destroy_plan(p); }
};
template <>
struct fftw<double> {
  using plan = fftw_plan;
  static plan make(int n, double* from, double* to, int sign) {
    return fftw_plan_dft_1d(n, reinterpret_cast<fftw_complex*>(from), reinterpret_cast<fftw_complex*>(to), sign,
                            FFTW_MEASURE);
  }
  static void run(plan p, double* from, double* to) {
    fftw_execute_dft(p, reinterpret_cast<fftw_complex*>(from), reinterpret_cast<fftw_complex*>(to));
  }
  static void destroy(plan p) { fftw_destroy_plan(p); }
};

/// Circular convolutions of 2 n real points with complex transforms of n points: even samples are the real parts, odd
/// samples the imaginary parts. FFTW's complex transforms are so much faster than its real ones that this pays in spite
/// of the untangling.
///
/// With Z the transform of a row, the transforms of its even and odd samples are e = (Z[k] + conj Z[n-k]) / 2 and d =
/// Z[k] - e (times i and a twiddle factor). The product of two rows is e = e1 e2 + t d1 d2, d = e1 d2 + d1 e2, where t
/// = -exp(-2 pi i k / n).
/// No scaling: the caller divides by n. Rows and spectra have 2 n elements, aligned to 64 bytes, and must not overlap
/// unless noted.
template <class T>
class circular_convolution {
 public:
  explicit circular_convolution(index_t n) : n_(n), twiddle_(size_t(2 * (n / 2 + 1))) {
    for (index_t k = 0; k <= n / 2; k++) {
      double const angle = 2 * std::numbers::pi * double(k) / double(n);
      twiddle_[size_t(2 * k)] = T(-std::cos(angle)), twiddle_[size_t(2 * k + 1)] = T(std::sin(angle));
    }
    std::unique_ptr<T, aligned> const from(allocate()), to(allocate());
    forward_ = fftw<T>::make(int(n), from.get(), to.get(), FFTW_FORWARD);
    inverse_ = fftw<T>::make(int(n), from.get(), to.get(), FFTW_BACKWARD);
  }
  circular_convolution(circular_convolution const&) = delete;
  circular_convolution& operator=(circular_convolution const&) = delete;
  ~circular_convolution() { fftw<T>::destroy(forward_), fftw<T>::destroy(inverse_); }

  /// Complex points for sequences of `length`, zero padding included: the next of 4, 5, 6, 7 times a power of two.
  /// Varying lengths thus share few plans, and no plan has large prime factors.
  static index_t points(index_t length) {
    index_t unit = 1;
    while (7 * unit < length) unit *= 2;
    return length <= 4 ? length : (length + unit - 1) / unit * unit;
  }
  /// The plan for `length`. Created on first use, which is slow, and kept until the program ends. FFTW chooses an
  /// algorithm by timing: bits repeat within a run but may differ between runs.
  static circular_convolution const& of(index_t length) {
    static std::mutex one_plans;
    static std::map<index_t, std::unique_ptr<circular_convolution>> plans;
    std::lock_guard const lock(one_plans);
    auto& plan = plans[points(length)];
    if (!plan) plan = std::make_unique<circular_convolution>(points(length));
    return *plan;
  }

  index_t points() const { return n_; }
  /// Does not modify the row.
  void forward(T* row, T* spectrum) const { fftw<T>::run(forward_, row, spectrum); }
  void inverse(T* spectrum, T* row) const { fftw<T>::run(inverse_, spectrum, row); }

  /// out = a * b (convolution of sequence and kernel). `out` may alias a.
  void convolve(T* out, T const* a, T const* b) const {
    each_pair([&]<int W>(index_t k, index_t mirror) {
      auto const x = untangle<W>(a, k, mirror), w = untangle<W>(b, k, mirror);
      auto const t = load_complex<W>(twiddle_.data() + 2 * k);
      tangle<W>(out, k, mirror, {x.e * w.e + t * (x.d * w.d), x.e * w.d + x.d * w.e});
    });
  }
  /// out = a * conj(b) (correlation), added to out if `add`. `out` may alias a.
  void correlate(T* out, T const* a, T const* b, bool add) const {
    each_pair([&]<int W>(index_t k, index_t mirror) {
      auto const x = untangle<W>(a, k, mirror), w = untangle<W>(b, k, mirror);
      auto const t = load_complex<W>(twiddle_.data() + 2 * k);
      halves<W> y{x.e * conj(w.e) + x.d * conj(w.d), conj(t) * (x.e * conj(w.d)) + x.d * conj(w.e)};
      if (add) {
        auto const old = untangle<W>(out, k, mirror);
        y = {y.e + old.e, y.d + old.d};
      }
      tangle<W>(out, k, mirror, y);
    });
  }

 private:
  struct aligned {
    void operator()(T* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  T* allocate() const { return static_cast<T*>(::operator new(size_t(2 * n_) * sizeof(T), std::align_val_t(64))); }

  template <int W>
  struct halves {
    complex_lanes<T, W> e, d;
  };
  template <int W>
  [[gnu::always_inline]] static halves<W> untangle(T const* z, index_t k, index_t mirror) {
    auto const a = load_complex<W>(z + 2 * k), b = conj(load_backwards<W>(z + 2 * mirror));
    return {T(0.5) * (a + b), T(0.5) * (a - b)};
  }
  template <int W>
  [[gnu::always_inline]] static void tangle(T* z, index_t k, index_t mirror, halves<W> y) {
    store_complex<W, T>(z + 2 * k, y.e + y.d);
    store_backwards<W, T>(z + 2 * mirror, conj(y.e - y.d));
  }
  /// Calls body(k, n - k) for bins 0 to n/2; bin 0 is its own mirror. A register must not overlap its mirror.
  template <class Body>
  [[gnu::always_inline]] void each_pair(Body const& body) const {
    constexpr int lanes = native_lanes<T>;
    body.template operator()<1>(0, 0);
    index_t k = 1;
    for (; 2 * (k + lanes) <= n_; k += lanes) body.template operator()<lanes>(k, n_ - k);
    for (; 2 * k <= n_; k++) body.template operator()<1>(k, n_ - k);
  }

  index_t n_;
  std::vector<T> twiddle_;
  typename fftw<T>::plan forward_, inverse_;
};

}  // namespace tcnca::models
