// Circular convolutions of 2L real points with FFTW, by two methods; the benchmark uses the faster one.
//
// `real_transform` is what frameworks call: rfft and irfft of 2L points, L + 1 bins. `packed_transform` views the 2L
// real points as L complex ones (even and odd positions), transforms those, and fuses separation, product and
// recombination of the two spectra into one pass. FFTW's complex transforms are so much faster than its real ones
// that this is usually faster, although no framework does it. Both transform one row at a time, which keeps the row
// and its spectrum in the cache: FFTW's batched plans (contiguous or interleaved) and its own threads were slower at
// every length.
#pragma once
#include <fftw3.h>

#include <cmath>
#include <numbers>
#include <utility>

#include <tcnca/core/config.hpp>
#include "../support/buffer.hpp"
#include "../support/vector.hpp"

namespace tcnca::bench {

/// Owns an FFTW plan. Executing a plan is thread-safe, creating one is not: one thread creates all plans.
class fftw_plan_holder {
 public:
  explicit fftw_plan_holder(fftwf_plan plan) : plan_(plan) {}
  fftw_plan_holder(fftw_plan_holder&& other) noexcept : plan_(std::exchange(other.plan_, nullptr)) {}
  fftw_plan_holder(fftw_plan_holder const&) = delete;
  fftw_plan_holder& operator=(fftw_plan_holder const&) = delete;
  ~fftw_plan_holder() {
    if (plan_ != nullptr) fftwf_destroy_plan(plan_);
  }
  fftwf_plan get() const { return plan_; }

 private:
  fftwf_plan plan_;
};

inline fftwf_complex* as_complex(float* p) { return reinterpret_cast<fftwf_complex*>(p); }

/// rfft and irfft of 2L points. A spectrum is L + 1 interleaved complex numbers. Unscaled: the caller divides by 2L.
class real_transform {
 public:
  static constexpr char const* name = "r2c";
  explicit real_transform(index_t length)
      : bins_(length + 1),
        forward_(plan_forward(static_cast<int>(2 * length))),
        inverse_(plan_inverse(static_cast<int>(2 * length))) {}

  /// Sizes in floats of a spectrum and of a padded row.
  size_t spectrum_floats() const { return static_cast<size_t>(2 * bins_); }
  size_t row_floats() const { return static_cast<size_t>(2 * bins_ - 2); }

  /// Preserves the row.
  void forward(float* row, float* spectrum) const { fftwf_execute_dft_r2c(forward_.get(), row, as_complex(spectrum)); }
  /// Destroys the spectrum.
  void inverse(float* spectrum, float* row) const { fftwf_execute_dft_c2r(inverse_.get(), as_complex(spectrum), row); }

  /// a = a * b (a sequence convolved with a kernel)
  void convolve(float* a, float const* b) const {
    for_bins(0, bins_, [&]<class V>(index_t k) {
      store_complex<V>(a + 2 * k, load_complex<V>(a + 2 * k) * load_complex<V>(b + 2 * k));
    });
  }
  /// out = a * conj(b), or out += a * conj(b) (a sequence correlated with another)
  void correlate(float* out, float const* a, float const* b, bool add) const {
    if (add)
      for_bins(0, bins_, [&]<class V>(index_t k) {
        store_complex<V>(out + 2 * k,
                         load_complex<V>(out + 2 * k) + load_complex<V>(a + 2 * k) * conj(load_complex<V>(b + 2 * k)));
      });
    else
      for_bins(0, bins_, [&]<class V>(index_t k) {
        store_complex<V>(out + 2 * k, load_complex<V>(a + 2 * k) * conj(load_complex<V>(b + 2 * k)));
      });
  }

 private:
  static fftw_plan_holder plan_forward(int n) {
    buffer<float> row(static_cast<size_t>(n)), spectrum(static_cast<size_t>(n + 2));
    return fftw_plan_holder(fftwf_plan_dft_r2c_1d(n, row.data(), as_complex(spectrum.data()), FFTW_MEASURE));
  }
  static fftw_plan_holder plan_inverse(int n) {
    buffer<float> row(static_cast<size_t>(n)), spectrum(static_cast<size_t>(n + 2));
    return fftw_plan_holder(
        fftwf_plan_dft_c2r_1d(n, as_complex(spectrum.data()), row.data(), FFTW_MEASURE | FFTW_DESTROY_INPUT));
  }
  index_t bins_;
  fftw_plan_holder forward_, inverse_;
};

/// The same convolutions by complex transforms of L points. A spectrum is L interleaved complex numbers, the packed
/// transforms of even and odd samples.
///
/// With Z the transform of a row, the row's even and odd samples have the transforms e = (Z[k] + conj Z[L-k]) / 2 and
/// d = Z[k] - e (times i and a twiddle), and a product of two rows is e = e1 e2 + t d1 d2, d = e1 d2 + d1 e2, where t
/// = -exp(-2 pi i k / L). Unscaled: the caller divides by L.
class packed_transform {
 public:
  static constexpr char const* name = "packed c2c";
  explicit packed_transform(index_t length)
      : length_(length),
        twiddle_(static_cast<size_t>(2 * (length / 2 + 1))),
        forward_(plan(length, FFTW_FORWARD)),
        inverse_(plan(length, FFTW_BACKWARD)) {
    for (index_t k = 0; k <= length / 2; k++) {
      double const angle = 2 * std::numbers::pi * static_cast<double>(k) / static_cast<double>(length);
      twiddle_[static_cast<size_t>(2 * k)] = static_cast<float>(-std::cos(angle));
      twiddle_[static_cast<size_t>(2 * k + 1)] = static_cast<float>(std::sin(angle));
    }
  }

  size_t spectrum_floats() const { return static_cast<size_t>(2 * length_); }
  size_t row_floats() const { return static_cast<size_t>(2 * length_); }

  void forward(float* row, float* spectrum) const {
    fftwf_execute_dft(forward_.get(), as_complex(row), as_complex(spectrum));
  }
  void inverse(float* spectrum, float* row) const {
    fftwf_execute_dft(inverse_.get(), as_complex(spectrum), as_complex(row));
  }

  void convolve(float* a, float const* b) const {
    each_pair([&]<class V>(index_t k, index_t mirror) {
      auto const x = separate<V>(a, k, mirror), w = separate<V>(b, k, mirror);
      auto const t = load_complex<V>(twiddle_.data() + 2 * k);
      combine<V>(a, k, mirror, {x.e * w.e + t * (x.d * w.d), x.e * w.d + x.d * w.e});
    });
  }
  void correlate(float* out, float const* a, float const* b, bool add) const {
    each_pair([&]<class V>(index_t k, index_t mirror) {
      auto const x = separate<V>(a, k, mirror), w = separate<V>(b, k, mirror);
      auto const t = load_complex<V>(twiddle_.data() + 2 * k);
      even_odd<V> y{x.e * conj(w.e) + x.d * conj(w.d), conj(t) * (x.e * conj(w.d)) + x.d * conj(w.e)};
      if (add) {
        auto const old = separate<V>(out, k, mirror);
        y = {y.e + old.e, y.d + old.d};
      }
      combine<V>(out, k, mirror, y);
    });
  }

 private:
  template <class V>
  struct even_odd {
    complex_of<V> e, d;
  };
  template <class V>
  [[gnu::always_inline]] static even_odd<V> separate(float const* z, index_t k, index_t mirror) {
    auto const a = load_complex<V>(z + 2 * k), b = conj(load_reversed<V>(z + 2 * mirror));
    return {0.5f * (a + b), 0.5f * (a - b)};
  }
  template <class V>
  [[gnu::always_inline]] static void combine(float* z, index_t k, index_t mirror, even_odd<V> y) {
    store_complex<V>(z + 2 * k, y.e + y.d);
    store_reversed<V>(z + 2 * mirror, conj(y.e - y.d));
  }
  /// Calls body(k, L - k) for the bins 0 to L/2; bin 0 is its own mirror. The vectors of k and of L - k must not
  /// overlap.
  template <class Body>
  [[gnu::always_inline]] void each_pair(Body const& body) const {
    body.template operator()<float>(0, 0);
    index_t k = 1;
    for (; 2 * (k + lanes) <= length_; k += lanes) body.template operator()<floats>(k, length_ - k);
    for (; 2 * k <= length_; k++) body.template operator()<float>(k, length_ - k);
  }
  static fftw_plan_holder plan(index_t length, int sign) {
    buffer<float> from(static_cast<size_t>(2 * length)), to(static_cast<size_t>(2 * length));
    return fftw_plan_holder(fftwf_plan_dft_1d(static_cast<int>(length), as_complex(from.data()), as_complex(to.data()),
                                              sign, FFTW_MEASURE));
  }
  index_t length_;
  buffer<float> twiddle_;
  fftw_plan_holder forward_, inverse_;
};

}  // namespace tcnca::bench
