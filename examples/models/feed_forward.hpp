// The feed-forward block that follows each layer.
#pragma once
#include "dropout.hpp"
#include "linear.hpp"
#include "norm.hpp"

namespace tcnca::models {

struct feed_forward_config {
  index_t channels = 64;
  index_t hidden = 128;
  norm_kind norm = norm_kind::layer;
  bool pre_norm = true;
  double dropout = 0;         ///< dropout of the result
  double hidden_dropout = 0;  ///< dropout of the hidden activation
  uint32 site = 2;            ///< identifies the dropout mask; blocks are 4 apart
};

/// y = x + dropout(dropout(silu(norm(x) W1 + b1)) W2 + b2). Without pre_norm: y = norm(x + dropout(...x...)).
template <class T, class E>
class feed_forward {
 public:
  feed_forward(context<T, E>& c, feed_forward_config const& config)
      : config_(config),
        norm_(c, config.norm, config.channels),
        first_(c, config.channels, config.hidden),
        second_(c, config.hidden, config.channels) {
    index_t const n = c.rows(), d = config.channels, f = config.hidden;
    normed_ = c.kept.take(n * d), before_ = c.kept.take(n * f), hidden_ = c.kept.take(n * f), sum_ = c.kept.take(n * d);
    size_t const begin = c.temporary.end();
    grad_out_ = c.temporary.take(n * d), grad_hidden_ = c.temporary.take(n * f), grad_normed_ = c.temporary.take(n * d);
    c.temporary.rewind(begin);
  }

  void forward(context<T, E> const& c, T const* x, T* y) const {
    auto const& kept = c.kept;
    index_t const n = c.rows(), d = config_.channels, f = config_.hidden;
    if (config_.pre_norm) norm_.forward(c, x, kept[normed_]);
    T* const sum = config_.pre_norm ? y : kept[sum_];
    first_.forward_silu(c, config_.pre_norm ? kept[normed_] : x, kept[before_], kept[hidden_]);
    dropout(c, config_.hidden_dropout, config_.site, n * f, kept[hidden_]);
    second_.forward(c, kept[hidden_], sum);
    dropout(c, config_.dropout, config_.site + 1, n * d, sum);
    add(c.executor(), n * d, x, sum);
    if (!config_.pre_norm) norm_.forward(c, sum, y);
  }

  /// In place: `grad` holds the gradient of y on entry and that of x on return.
  void backward(context<T, E> const& c, T const* x, T* grad) const {
    auto const &kept = c.kept, &temporary = c.temporary;
    index_t const n = c.rows(), d = config_.channels, f = config_.hidden;
    if (!config_.pre_norm) norm_.backward(c, kept[sum_], grad, grad, false);
    T* const out = temporary[grad_out_];
    copy(c.executor(), n * d, grad, out);
    dropout(c, config_.dropout, config_.site + 1, n * d, out);
    second_.backward(c, kept[hidden_], out, temporary[grad_hidden_]);
    dropout(c, config_.hidden_dropout, config_.site, n * f, temporary[grad_hidden_]);
    if (config_.pre_norm) {
      first_.backward_silu(c, kept[normed_], kept[before_], temporary[grad_hidden_], temporary[grad_normed_]);
      norm_.backward(c, x, temporary[grad_normed_], grad, true);
    } else {
      first_.backward_silu(c, x, kept[before_], temporary[grad_hidden_], grad, true);
    }
  }

 private:
  feed_forward_config config_;
  norm<T, E> norm_;
  linear<T, E> first_, second_;
  region normed_, before_, hidden_, sum_, grad_out_, grad_hidden_, grad_normed_;
};

}  // namespace tcnca::models
