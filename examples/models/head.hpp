// Heads: the next token of each position, the class of a sequence, or the class of a pair of sequences.
#pragma once
#include "linear.hpp"
#include "pooling.hpp"

namespace tcnca::models {

/// The interface of a head.
template <class T, class E>
class head {
 public:
  virtual ~head() = default;
  head(head const&) = delete;
  head& operator=(head const&) = delete;

  /// Predictions of the current batch.
  virtual index_t rows(context<T, E> const& c) const = 0;
  /// x is [batch, length, channels], logits are [rows, tokens or classes].
  virtual void forward(context<T, E> const& c, T const* x, T* logits) const = 0;
  virtual void backward(context<T, E> const& c, T const* x, T const* grad_logits, T* grad_x) const = 0;

 protected:
  head() = default;
};

/// A linear map of each position.
template <class T, class E>
class token_head final : public head<T, E> {
 public:
  token_head(context<T, E>& c, index_t channels, index_t vocabulary) : output_(c, channels, vocabulary) {}
  index_t rows(context<T, E> const& c) const override { return c.rows(); }
  void forward(context<T, E> const& c, T const* x, T* logits) const override { output_.forward(c, x, logits); }
  void backward(context<T, E> const& c, T const* x, T const* grad_logits, T* grad_x) const override {
    output_.backward(c, x, grad_logits, grad_x);
  }

 private:
  linear<T, E> output_;
};

namespace detail {

/// y [pairs, 4 channels] = (a, b, a b, a - b) for neighbouring rows a and b of x [2 pairs, channels].
template <class T>
struct pair_features {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t channels;
  T const* x;
  T* y;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      auto const a = load<W>(x + 2 * row * channels + k), b = load<W>(x + (2 * row + 1) * channels + k);
      T* const out = y + 4 * row * channels + k;
      store<W>(out, a), store<W>(out + channels, b), store<W>(out + 2 * channels, a * b),
          store<W>(out + 3 * channels, a - b);
    });
  }
};
template <class T>
struct pair_features_backward {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t channels;
  T const *x, *grad_y;
  T* grad_x;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      index_t const at_a = 2 * row * channels + k, at_b = at_a + channels;
      auto const a = load<W>(x + at_a), b = load<W>(x + at_b);
      T const* const g = grad_y + 4 * row * channels + k;
      auto const product = load<W>(g + 2 * channels), difference = load<W>(g + 3 * channels);
      store<W>(grad_x + at_a, load<W>(g) + product * b + difference);
      store<W>(grad_x + at_b, load<W>(g + channels) + product * a - difference);
    });
  }
};

}  // namespace detail

/// logits = gelu(features W1 + b1) W2 + b2. The features are the mean over a sequence's positions; for pairs (a, b, a
/// b, a - b) of the two means.
template <class T, class E>
class class_head final : public head<T, E> {
 public:
  class_head(context<T, E>& c, index_t channels, index_t hidden, index_t classes, bool pairs)
      : channels_(channels),
        hidden_dim_(hidden),
        pairs_(pairs),
        first_(c, pairs ? 4 * channels : channels, hidden),
        second_(c, hidden, classes) {
    index_t const b = c.batch;
    pooled_ = c.kept.take(b * channels), before_ = c.kept.take(b * hidden), hidden_ = c.kept.take(b * hidden);
    if (pairs) features_ = c.kept.take(2 * b * channels);
    size_t const begin = c.temporary.end();
    grad_hidden_ = c.temporary.take(b * hidden), grad_pooled_ = c.temporary.take(b * channels);
    if (pairs) grad_features_ = c.temporary.take(2 * b * channels);
    c.temporary.rewind(begin);
  }
  index_t rows(context<T, E> const& c) const override { return pairs_ ? c.batch / 2 : c.batch; }

  void forward(context<T, E> const& c, T const* x, T* logits) const override {
    index_t const n = rows(c);
    mean_pooling(c, channels_, x, c.kept[pooled_]);
    if (pairs_)
      each_row(c.executor(), n, channels_, detail::pair_features<T>{channels_, c.kept[pooled_], c.kept[features_]});
    first_.forward(c, n, features(c), c.kept[before_]);
    gelu(c.executor(), n * hidden_dim_, static_cast<T const*>(c.kept[before_]), c.kept[hidden_]);
    second_.forward(c, n, c.kept[hidden_], logits);
  }
  void backward(context<T, E> const& c, T const*, T const* grad_logits, T* grad_x) const override {
    index_t const n = rows(c);
    T *const grad_hidden = c.temporary[grad_hidden_], *const grad_pooled = c.temporary[grad_pooled_];
    T* const grad_features = pairs_ ? c.temporary[grad_features_] : grad_pooled;
    second_.backward(c, n, c.kept[hidden_], grad_logits, grad_hidden);
    gelu_backward(c.executor(), n * hidden_dim_, static_cast<T const*>(c.kept[before_]),
                  static_cast<T const*>(grad_hidden), grad_hidden);
    first_.backward(c, n, features(c), grad_hidden, grad_features);
    if (pairs_)
      each_row(c.executor(), n, channels_,
               detail::pair_features_backward<T>{channels_, c.kept[pooled_], grad_features, grad_pooled});
    mean_pooling_backward(c, channels_, static_cast<T const*>(grad_pooled), grad_x);
  }

 private:
  T const* features(context<T, E> const& c) const { return c.kept[pairs_ ? features_ : pooled_]; }

  index_t channels_, hidden_dim_;
  bool pairs_;
  linear<T, E> first_, second_;
  region pooled_, features_, before_, hidden_, grad_hidden_, grad_pooled_, grad_features_;
};

template <class T, class E>
std::unique_ptr<head<T, E>> make_head(context<T, E>& c, model_config const& m) {
  if (m.head == head_kind::next_token) return std::make_unique<token_head<T, E>>(c, m.channels, m.vocabulary);
  return std::make_unique<class_head<T, E>>(c, m.channels, m.hidden, m.classes, m.head == head_kind::pair_class);
}

}  // namespace tcnca::models
