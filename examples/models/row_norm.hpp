// Norms over the channels of each position.
#pragma once
#include <cmath>

#include "model.hpp"
#include "sums.hpp"

namespace tcnca::models {

/// Added to a variance before the square root.
inline constexpr double norm_epsilon = 1e-5;

namespace detail {

template <class T>
struct row_norm_forward {
  using value_type = T;
  static constexpr int shared_per_thread = 1;
  norm_kind kind;
  index_t channels;
  T const *x, *gain, *bias;
  T *y, *mean, *inverse;

  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T* shared_memory) const {
    T const* const in = x + row * channels;
    T* const out = y + row * channels;
    T m = 0;
    if (kind == norm_kind::layer) {
      m = threads.template sum<T>(out_of_range, channels, shared_memory,
                                  [&](auto w, index_t k) TCNCA_INLINE { return load<decltype(w)::value>(in + k); });
      m /= T(channels);
    }
    T const square =
        threads.template sum<T>(out_of_range, channels, shared_memory, [&](auto w, index_t k) TCNCA_INLINE {
          constexpr int W = decltype(w)::value;
          auto const v = load<W>(in + k) - broadcast<W>(m);
          return v * v;
        });
    T const inv = 1 / std::sqrt(square / T(channels) + T(norm_epsilon));
    if (out_of_range) return;
    if (threads.lane() == 0) mean[row] = m, inverse[row] = inv;
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      auto const g = kind == norm_kind::scale ? broadcast<W>(*gain) : load<W>(gain + k);
      auto const v = g * ((load<W>(in + k) - broadcast<W>(m)) * broadcast<W>(inv));
      store<W>(out + k, kind == norm_kind::layer ? v + load<W>(bias + k) : v);
    });
  }
};

template <class T>
struct row_norm_backward {
  using value_type = T;
  static constexpr int shared_per_thread = 1;
  norm_kind kind;
  bool add;
  index_t channels;
  T const *x, *grad_y, *gain, *mean, *inverse;
  T* grad_x;

  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T* shared_memory) const {
    T const *const in = x + row * channels, *const g = grad_y + row * channels;
    T* const out = grad_x + row * channels;
    T const m = out_of_range ? T(0) : mean[row], inv = out_of_range ? T(0) : inverse[row];
    auto const through = [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      return load<W>(g + k) * (kind == norm_kind::scale ? broadcast<W>(*gain) : load<W>(gain + k));
    };
    auto const normed = [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      return (load<W>(in + k) - broadcast<W>(m)) * broadcast<W>(inv);
    };
    auto const along_terms = [&](auto w, index_t k) TCNCA_INLINE { return through(w, k) * normed(w, k); };
    T const along = threads.template sum<T>(out_of_range, channels, shared_memory, along_terms) / T(channels);
    T total = 0;  // only for norms that subtract a mean
    if (kind == norm_kind::layer)
      total = threads.template sum<T>(out_of_range, channels, shared_memory, through) / T(channels);
    if (out_of_range) return;
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      auto const v = broadcast<W>(inv) * (through(w, k) - broadcast<W>(total) - normed(w, k) * broadcast<W>(along));
      store<W>(out + k, add ? load<W>(out + k) + v : v);
    });
  }
};

/// Terms of column_sums: the gradients of gain and bias.
template <class T, bool Bias>
struct row_norm_gain {
  static constexpr int kinds = Bias ? 2 : 1;
  index_t channels;
  T const *x, *grad_y, *mean, *inverse;
  TCNCA_HOST_DEVICE static constexpr bool counts(index_t) { return true; }
  template <int W>
  TCNCA_HOST_DEVICE void add(pack<T, W>* sums, index_t r, index_t k) const {
    auto const g = load<W>(grad_y + r * channels + k);
    sums[0] = sums[0] + g * ((load<W>(x + r * channels + k) - broadcast<W>(mean[r])) * broadcast<W>(inverse[r]));
    if constexpr (Bias) { sums[1] = sums[1] + g; }
  }
};

}  // namespace detail

/// layer, rms and scale norm (see norm.hpp).
template <class T, class E>
class row_norm {
 public:
  row_norm(context<T, E>& c, norm_kind kind, index_t channels) : kind_(kind), channels_(channels) {
    gain_ = c.parameter(kind == norm_kind::scale ? 1 : channels, {.mean = 1});
    if (kind == norm_kind::layer) bias_ = c.parameter(channels, {});
    mean_ = c.kept.take(c.rows()), inverse_ = c.kept.take(c.rows());
    // The gradient of the single gain is the sum over channels.
    if (kind == norm_kind::scale) sums_ = c.kept.take(channels);
    c.reserve(column_sums_bytes<T>(c.rows(), channels, 2));
  }

  void forward(context<T, E> const& c, T const* x, T* y) const {
    T const* const bias = kind_ == norm_kind::layer ? c.values[bias_] : nullptr;
    each_row(
        c.executor(), c.rows(), channels_,
        detail::row_norm_forward<T>{kind_, channels_, x, c.values[gain_], bias, y, c.kept[mean_], c.kept[inverse_]});
  }
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add) const {
    T const *const mean = c.kept[mean_], *const inverse = c.kept[inverse_];
    index_t const rows = c.rows();
    if (kind_ == norm_kind::layer) {
      column_sums(c, rows, channels_, detail::row_norm_gain<T, true>{channels_, x, grad_y, mean, inverse},
                  {c.gradients[gain_], c.gradients[bias_]});
    } else {
      T* const sums = kind_ == norm_kind::scale ? c.kept[sums_] : c.gradients[gain_];
      column_sums(c, rows, channels_, detail::row_norm_gain<T, false>{channels_, x, grad_y, mean, inverse}, {sums});
      if (kind_ == norm_kind::scale) sum_all(c.executor(), channels_, sums, c.gradients[gain_]);
    }
    each_row(c.executor(), rows, channels_,
             detail::row_norm_backward<T>{kind_, add, channels_, x, grad_y, c.values[gain_], mean, inverse, grad_x});
  }

 private:
  norm_kind kind_;
  index_t channels_;
  region gain_, bias_, mean_, inverse_, sums_;
};

}  // namespace tcnca::models
