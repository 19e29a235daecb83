// Batch norm: each channel is normalized over the positions of a batch.
#pragma once
#include <cmath>

#include "row_norm.hpp"

namespace tcnca::models {

namespace detail {

/// The valid positions: the first lengths[b] of each sequence.
struct valid_positions {
  index_t const* lengths;  ///< null: all positions
  index_t length;
  TCNCA_HOST_DEVICE bool contains(index_t row) const {
    return lengths == nullptr || row % length < lengths[row / length];
  }
};

/// Terms of column_sums: x, or with Centred the squared distance of x from its mean (`center_sum` holds the sums of x
/// over the positions).
template <class T, bool Centred>
struct batch_moment {
  static constexpr int kinds = 1;
  index_t channels;
  valid_positions valid;
  T const *x, *center_sum;
  T inverse_count;
  TCNCA_HOST_DEVICE bool counts(index_t row) const { return valid.contains(row); }
  template <int W>
  TCNCA_HOST_DEVICE void add(pack<T, W>* sums, index_t r, index_t k) const {
    auto v = load<W>(x + r * channels + k);
    if constexpr (Centred) {
      v = v - load<W>(center_sum + k) * broadcast<W>(inverse_count);
      v = v * v;
    }
    sums[0] = sums[0] + v;
  }
};

/// Computes mean and 1 / deviation from a batch's sums, and the running statistics that follow.
template <class T>
struct batch_statistics {
  index_t count;
  T const *sum, *squares, *running_mean, *running_variance;
  T *mean, *inverse, *next_mean, *next_variance;
  static constexpr double momentum = 0.1;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t k) const {
    for (index_t i = k; i < k + W; i++) {
      T const n = T(max_of(index_t(1), count)), variance = squares[i] / n;
      mean[i] = sum[i] / n;
      inverse[i] = 1 / std::sqrt(variance + T(norm_epsilon));
      // Unbiased estimate: divided by count - 1.
      T const unbiased = squares[i] / T(max_of(index_t(1), count - 1));
      next_mean[i] = T(1 - momentum) * running_mean[i] + T(momentum) * mean[i];
      next_variance[i] = T(1 - momentum) * running_variance[i] + T(momentum) * unbiased;
    }
  }
};
template <class T>
struct running_statistics {
  T const *running_mean, *running_variance;
  T *mean, *inverse;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t k) const {
    for (index_t i = k; i < k + W; i++)
      mean[i] = running_mean[i], inverse[i] = 1 / std::sqrt(running_variance[i] + T(norm_epsilon));
  }
};

template <class T>
struct batch_norm_forward {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t channels;
  T const *x, *gain, *bias, *mean, *inverse;
  T* y;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      auto const v = (load<W>(x + row * channels + k) - load<W>(mean + k)) * load<W>(inverse + k);
      store<W>(y + row * channels + k, load<W>(gain + k) * v + load<W>(bias + k));
    });
  }
};

/// Terms of column_sums: the gradients of gain and bias.
template <class T>
struct batch_norm_gain {
  static constexpr int kinds = 2;
  index_t channels;
  T const *x, *grad_y, *mean, *inverse;
  TCNCA_HOST_DEVICE static constexpr bool counts(index_t) { return true; }
  template <int W>
  TCNCA_HOST_DEVICE void add(pack<T, W>* sums, index_t r, index_t k) const {
    auto const g = load<W>(grad_y + r * channels + k);
    sums[0] = sums[0] + g * ((load<W>(x + r * channels + k) - load<W>(mean + k)) * load<W>(inverse + k));
    sums[1] = sums[1] + g;
  }
};

/// Positions that are not valid did not contribute to mean and deviation.
template <class T>
struct batch_norm_backward {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t channels;
  valid_positions valid;
  T inverse_count;  ///< 1 / positions; 0 if mean and deviation are constants
  bool add;
  T const *x, *grad_y, *gain, *mean, *inverse, *grad_gain, *grad_bias;
  T* grad_x;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    T const part = valid.contains(row) ? inverse_count : T(0);
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      auto const inv = load<W>(inverse + k), normed = (load<W>(x + row * channels + k) - load<W>(mean + k)) * inv;
      auto const common = broadcast<W>(part) * (load<W>(grad_bias + k) + normed * load<W>(grad_gain + k));
      auto const v = load<W>(gain + k) * inv * (load<W>(grad_y + row * channels + k) - common);
      T* const out = grad_x + row * channels + k;
      store<W>(out, add ? load<W>(out) + v : v);
    });
  }
};

}  // namespace detail

/// y = gain (x - mean) / deviation + bias, per channel. Training: mean and deviation over the valid positions of the
/// batch (context::lengths). Otherwise: the running means of earlier batches, with momentum 0.1.
template <class T, class E>
class batch_norm {
 public:
  batch_norm(context<T, E>& c, index_t channels)
      : channels_(channels),
        gain_(c.parameter(channels, {.mean = 1})),
        bias_(c.parameter(channels, {})),
        running_mean_(c.statistic(channels, {})),
        running_variance_(c.statistic(channels, {.mean = 1})),
        mean_(c.kept.take(channels)),
        inverse_(c.kept.take(channels)),
        sum_(c.kept.take(channels)),
        squares_(c.kept.take(channels)) {
    c.reserve(column_sums_bytes<T>(c.rows(), channels, 2));
  }

  /// In training, writes the next running statistics; adam::step makes them current if the step succeeds.
  void forward(context<T, E> const& c, T const* x, T* y) const {
    T *const mean = c.kept[mean_], *const inverse = c.kept[inverse_], *const sum = c.kept[sum_],
             *const squares = c.kept[squares_];
    if (c.training) {
      index_t const count = c.valid_rows();
      T const inverse_count = 1 / T(std::max(index_t(1), count));
      column_sums(c, c.rows(), channels_,
                  detail::batch_moment<T, false>{channels_, valid(c), x, nullptr, inverse_count}, {sum});
      column_sums(c, c.rows(), channels_, detail::batch_moment<T, true>{channels_, valid(c), x, sum, inverse_count},
                  {squares});
      each_element<T>(c.executor(), channels_,
                      detail::batch_statistics<T>{
                          count, sum, squares, c.statistics[running_mean_], c.statistics[running_variance_], mean,
                          inverse, c.next_statistics[running_mean_], c.next_statistics[running_variance_]});
    } else {
      each_element<T>(
          c.executor(), channels_,
          detail::running_statistics<T>{c.statistics[running_mean_], c.statistics[running_variance_], mean, inverse});
    }
    each_row(c.executor(), c.rows(), channels_,
             detail::batch_norm_forward<T>{channels_, x, c.values[gain_], c.values[bias_], mean, inverse, y});
  }

  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add) const {
    T const *const mean = c.kept[mean_], *const inverse = c.kept[inverse_];
    T *const grad_gain = c.gradients[gain_], *const grad_bias = c.gradients[bias_];
    T const inverse_count = c.training ? 1 / T(std::max(index_t(1), c.valid_rows())) : T(0);
    column_sums(c, c.rows(), channels_, detail::batch_norm_gain<T>{channels_, x, grad_y, mean, inverse},
                {grad_gain, grad_bias});
    detail::batch_norm_backward<T> const op{channels_,       valid(c), inverse_count, add,       x,         grad_y,
                                            c.values[gain_], mean,     inverse,       grad_gain, grad_bias, grad_x};
    each_row(c.executor(), c.rows(), channels_, op);
  }

 private:
  detail::valid_positions valid(context<T, E> const& c) const { return {c.lengths(), c.length}; }

  index_t channels_;
  region gain_, bias_, running_mean_, running_variance_, mean_, inverse_, sum_, squares_;
};

}  // namespace tcnca::models
