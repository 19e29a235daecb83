// Norms of every position's channels.
#pragma once
#include <cmath>

#include "elementwise.hpp"
#include "model.hpp"

namespace tcnca::models {

/// Of norm_kind; layer: gain (x - mean) / deviation + bias;  rms: gain x / sqrt(mean x^2), a gain a channel;  scale: the same with one gain for all.
template <class T, class E>
class norm {
 public:
  norm(context<T, E>& c, norm_kind kind, index channels) : kind_(kind), channels_(channels) {
    gain_ = c.parameter(kind == norm_kind::scale ? 1 : channels, {.mean = 1});
    if (kind == norm_kind::layer) bias_ = c.parameter(channels, {});
    mean_ = c.kept.take(c.rows()), inverse_ = c.kept.take(c.rows());
    // One gain is learned from sums a channel.
    if (kind == norm_kind::scale) sums_ = c.kept.take(channels);
  }

  void forward(context<T, E> const& c, T const* x, T* y) const {
    index const d = channels_, rows = c.rows();
    T *const mean = c.kept[mean_], *const inverse = c.kept[inverse_];
    T const *const gain = c.values[gain_], *const bias = c.values[bias_];
    norm_kind const kind = kind_;
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (index r = 0; r < rows; r++) {
      T const* const in = x + r * d;
      T* const out = y + r * d;
      T sum = 0, square = 0;
      if (kind == norm_kind::layer) {
#pragma omp simd reduction(+ : sum)
        for (index k = 0; k < d; k++) sum += in[k];
      }
      T const m = sum / T(d);
#pragma omp simd reduction(+ : square)
      for (index k = 0; k < d; k++) square += (in[k] - m) * (in[k] - m);
      T const inv = 1 / std::sqrt(square / T(d) + T(epsilon));
      mean[r] = m, inverse[r] = inv;
      for (index k = 0; k < d; k++)
        out[k] = gain[kind == norm_kind::scale ? 0 : k] * (in[k] - m) * inv + (kind == norm_kind::layer ? bias[k] : T(0));
    }
  }

  /// The forward pass with the same x came before. grad_x is overwritten (then it may be the memory of grad_y), or with `add` added to.
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add) const {
    index const d = channels_, rows = c.rows();
    T const *const mean = c.kept[mean_], *const inverse = c.kept[inverse_], *const gain = c.values[gain_];
    norm_kind const kind = kind_;
    bool const scale = kind == norm_kind::scale;
    T* const sums = scale ? c.kept[sums_] : c.gradients[gain_];
    column_sums(c.threads, rows, d, sums, [=](index r, index k) { return grad_y[r * d + k] * (x[r * d + k] - mean[r]) * inverse[r]; });
    if (scale) {
      T total = 0;
      for (index k = 0; k < d; k++) total += sums[k];
      *c.gradients[gain_] = total;
    }
    if (kind == norm_kind::layer) column_sums(c.threads, rows, d, c.gradients[bias_], [=](index r, index k) { return grad_y[r * d + k]; });
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (index r = 0; r < rows; r++) {
      T const *const in = x + r * d, *const g = grad_y + r * d;
      T* const out = grad_x + r * d;
      T along = 0, total = 0;  // means of gain g (x - mean) / deviation, and of gain g where a mean is taken off
#pragma omp simd reduction(+ : along, total)
      for (index k = 0; k < d; k++) {
        T const through = g[k] * gain[scale ? 0 : k];
        along += through * (in[k] - mean[r]) * inverse[r], total += through;
      }
      along /= T(d), total = kind == norm_kind::layer ? total / T(d) : T(0);
      for (index k = 0; k < d; k++) {
        T const v = inverse[r] * (g[k] * gain[scale ? 0 : k] - total - (in[k] - mean[r]) * inverse[r] * along);
        out[k] = add ? out[k] + v : v;
      }
    }
  }

 private:
  static constexpr double epsilon = 1e-5;
  norm_kind kind_;
  index channels_;
  region gain_, bias_, mean_, inverse_, sums_;
};

}  // namespace tcnca::models
