// MEGA's EMA as a convolution by FFT on the CPU, for activations [batch, length, channels].
#pragma once
#include <tcnca/block/activation.hpp>
#include <tcnca/block/transpose.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>

#include "fft.hpp"
#include "fft_problem.hpp"

namespace tcnca::models {

/// A thread transposes as many neighbouring channels as a register has lanes into rows in its cache and transforms them
/// one after another. The spectra of x and of the kernel are stored for the backward pass, as autograd does, which is
/// faster than computing them again. Threads split the groups of channels, and in the forward pass the sequences.
template <class T>
struct fft_convolution<T, cpu> {
  static size_t spectra_count(index_t batch, index_t channels, index_t length) {
    return size_t(batch * channels * spectrum(length));
  }
  static size_t kernel_spectra_count(index_t channels, index_t length) { return size_t(channels * spectrum(length)); }
  static size_t scratch_bytes(cpu e, fft_problem<T> const& p) {
    return size_t(threads(e) * thread_count(p.length)) * sizeof(T);
  }
  /// Creates the plans in advance.
  static void prepare(cpu, fft_problem<T> const& p) {
    if (p.length > 0) circular_convolution<T>::of(p.length);
  }

  /// kappa is [channels, length]; bidirectional: [2 channels, length], causal kernels first.
  static void forward(cpu e, fft_problem<T> const& p, T const* x, T const* kappa, T* y) {
    if (p.length == 0) return;
    runner const r(e, p);
    r.each(p.channels, [&](index_t c, places const& s) {
      r.lay_out_kernel(kappa, c, s.input);
      r.plan.forward(s.input, s.spectrum);
      r.keep(s.spectrum, p.kernel_spectra + c * r.stride);
    });
    index_t const groups = r.groups();
    r.each(p.batch * groups,
           [&](index_t i, places const& s) { r.forward_group(x, y, i / groups, i % groups * lanes, s); });
  }
  /// grad_kappa and grad_omega (optional) are sums over the batch.
  static void backward(cpu e, fft_problem<T> const& p, T const* x, T const* grad_y, T* grad_x, T* grad_kappa,
                       T* grad_omega) {
    if (p.length == 0) return;
    runner const r(e, p);
    r.each(r.groups(), [&](index_t i, places const& s) {
      r.backward_group(x, grad_y, grad_x, grad_kappa, grad_omega, i * lanes, s);
    });
  }

 private:
  static constexpr int lanes = native_lanes<T>, line = 64 / int(sizeof(T));
  using vector = pack<T, lanes>;
  /// Prefetch distance in positions: the hardware prefetcher does not follow strides of a whole position. 5 to 8 % of a
  /// pass at 512 channels (AMD EPYC Zen 5, 2026-11-24).
  static constexpr index_t ahead = 32;

  static int threads([[maybe_unused]] cpu e) {
#if defined(_OPENMP)
    return e.threads > 0 ? e.threads : omp_get_max_threads();
#else
    return 1;
#endif
  }
  static index_t whole_lines(index_t n) { return (n + line - 1) / line * line; }
  static index_t spectrum(index_t length) { return whole_lines(2 * circular_convolution<T>::points(length)); }
  static index_t row(index_t length) {
    return whole_lines(length) + line;
  }  // not a power of two, to avoid cache conflicts
  static index_t buffer(index_t length) { return spectrum(length) + line; }
  static index_t thread_count(index_t length) { return lanes * row(length) + (3 + lanes) * buffer(length); }

  /// The workspace of one thread. A row is zero after the end of the sequence.
  struct places {
    T *rows, *input, *output, *spectrum, *sums;
  };

  struct runner {
    int const workers;
    fft_problem<T> const& p;
    circular_convolution<T> const& plan;
    index_t const stride, row_stride;
    T const scale;

    runner(cpu e, fft_problem<T> const& problem)
        : workers(threads(e)),
          p(problem),
          plan(circular_convolution<T>::of(problem.length)),
          stride(spectrum(problem.length)),
          row_stride(row(problem.length)),
          scale(T(1) / T(plan.points())) {}

    index_t groups() const { return (p.channels + lanes - 1) / lanes; }
    T* kept(index_t b, index_t c) const { return p.spectra + (b * p.channels + c) * stride; }

    template <class Body>
    void each(index_t count, Body const& body) const {
#pragma omp parallel for num_threads(workers) schedule(static)
      for (index_t i = 0; i < count; i++) {
        int thread = 0;
#if defined(_OPENMP)
        thread = omp_get_thread_num();
#endif
        index_t const one = buffer(p.length);
        T* const rows = static_cast<T*>(p.scratch) + thread * thread_count(p.length);
        T* const input = rows + lanes * row_stride;
        body(i, places{rows, input, input + one, input + 2 * one, input + 3 * one});
      }
    }

    /// Writes the kernel to the circle: lag m at position m, lag -m at position -m.
    void lay_out_kernel(T const* kappa, index_t c, T* to) const {
      T const* const causal = kappa + c * p.length;
      std::copy_n(causal, p.length, to);
      std::fill(to + p.length, to + 2 * plan.points(), T(0));
      if (!p.bidirectional) return;
      T const* const other = kappa + (p.channels + c) * p.length;
      to[0] += other[0];
      for (index_t m = 1; m < p.length; m++) to[2 * plan.points() - m] += other[m];
    }
    void take_apart(T const* circle, index_t c, T* grad_kappa) const {
      T* const causal = grad_kappa + c * p.length;
      for (index_t m = 0; m < p.length; m++) causal[m] = scale * circle[m];
      if (!p.bidirectional) return;
      T* const other = grad_kappa + (p.channels + c) * p.length;
      other[0] = causal[0];
      for (index_t m = 1; m < p.length; m++) other[m] = scale * circle[2 * plan.points() - m];
    }
    /// Computes the spectrum of a row.
    void transform(T const* row, places const& s) const {
      std::copy_n(row, p.length, s.input);
      std::fill(s.input + p.length, s.input + 2 * plan.points(), T(0));
      plan.forward(s.input, s.spectrum);
    }
    /// Copies a spectrum. FFTW itself is slow when it writes to memory outside the cache.
    void keep(T const* spectrum, T* to) const { std::copy_n(spectrum, stride, to); }
    /// Adds the inverse transform to omega times the previous contents of the row.
    void transform_back(places const& s, index_t c, T* row) const {
      plan.inverse(s.spectrum, s.output);
      T const factor = p.omega != nullptr ? p.omega[c] : T(0), by = scale;
      T const* const from = s.output;
      for (index_t t = 0; t < p.length; t++) row[t] = by * from[t] + factor * row[t];
    }

    static vector read(T const* p, index_t n) { return n == lanes ? load<lanes>(p) : load_some<lanes>(p, 1, n); }
    static void write(T* p, index_t n, vector v) {
      if (n == lanes) store<lanes>(p, v);
      else store_some<lanes>(p, 1, n, v);
    }
    /// Transposes channels into rows: get(t) returns the channels at position t.
    template <class Get>
    void to_rows(T* rows, Get const& get) const {
      for (index_t t = 0; t < p.length; t += lanes) {
        vector tile[lanes];
        index_t const n = std::min(index_t(lanes), p.length - t);
        for (int i = 0; i < lanes; i++) tile[i] = i < n ? get(t + i) : broadcast<lanes>(T(0));
        transpose(tile);
        for (int i = 0; i < lanes; i++) write(rows + i * row_stride + t, n, tile[i]);
      }
    }
    template <class Put>
    void from_rows(T const* rows, Put const& put) const {
      for (index_t t = 0; t < p.length; t += lanes) {
        vector tile[lanes];
        index_t const n = std::min(index_t(lanes), p.length - t);
        for (int i = 0; i < lanes; i++) tile[i] = read(rows + i * row_stride + t, n);
        transpose(tile);
        for (int i = 0; i < n; i++) put(t + i, tile[i]);
      }
    }

    void forward_group(T const* x, T* y, index_t b, index_t first, places const& s) const {
      index_t const n = std::min(index_t(lanes), p.channels - first), d = p.channels, at = b * p.length * d + first;
      to_rows(s.rows, [&](index_t t) {
        __builtin_prefetch(x + at + (t + ahead) * d);
        return read(x + at + t * d, n);
      });
      for (index_t i = 0; i < n; i++) {
        transform(s.rows + i * row_stride, s);
        keep(s.spectrum, kept(b, first + i));
        plan.convolve(s.spectrum, s.spectrum, p.kernel_spectra + (first + i) * stride);
        transform_back(s, first + i, s.rows + i * row_stride);
      }
      if (p.omega != nullptr)
        from_rows(s.rows, [&](index_t t, vector v) {
          __builtin_prefetch(y + at + (t + ahead) * d, 1);
          __builtin_prefetch(p.before + at + (t + ahead) * d, 1);
          write(p.before + at + t * d, n, v);
          write(y + at + t * d, n, activate<activation::silu>(v).value);
        });
      else from_rows(s.rows, [&](index_t t, vector v) { write(y + at + t * d, n, v); });
    }

    void backward_group(T const* x, T const* grad_y, T* grad_x, T* grad_kappa, T* grad_omega, index_t first,
                        places const& s) const {
      index_t const n = std::min(index_t(lanes), p.channels - first), d = p.channels, one = buffer(p.length);
      double of_omega[lanes] = {};
      for (index_t b = 0; b < p.batch; b++) {
        index_t const at = b * p.length * d + first;
        auto sum = broadcast<lanes>(T(0));  // sum over one tile
        if (p.omega != nullptr)
          to_rows(s.rows, [&](index_t t) {
            __builtin_prefetch(grad_y + at + (t + ahead) * d);
            __builtin_prefetch(p.before + at + (t + ahead) * d);
            __builtin_prefetch(x + at + (t + ahead) * d);
            auto const g =
                read(grad_y + at + t * d, n) * activate<activation::silu>(read(p.before + at + t * d, n)).derivative;
            sum = fma(g, read(x + at + t * d, n), sum);
            if (t % lanes == lanes - 1 || t == p.length - 1) {
              for (int i = 0; i < lanes; i++) of_omega[i] += double(sum.lane(i));
              sum = broadcast<lanes>(T(0));
            }
            return g;
          });
        else to_rows(s.rows, [&](index_t t) { return read(grad_y + at + t * d, n); });
        for (index_t i = 0; i < n; i++) {
          transform(s.rows + i * row_stride, s);
          plan.correlate(s.sums + i * one, s.spectrum, kept(b, first + i), b > 0);
          plan.correlate(s.spectrum, s.spectrum, p.kernel_spectra + (first + i) * stride, false);
          transform_back(s, first + i, s.rows + i * row_stride);
        }
        from_rows(s.rows, [&](index_t t, vector v) {
          __builtin_prefetch(grad_x + at + (t + ahead) * d, 1);
          write(grad_x + at + t * d, n, v);
        });
      }
      for (index_t i = 0; i < n; i++) {
        plan.inverse(s.sums + i * one, s.output);
        take_apart(s.output, first + i, grad_kappa);
        if (grad_omega != nullptr) grad_omega[first + i] = T(of_omega[i]);
      }
    }
  };
};

}  // namespace tcnca::models
