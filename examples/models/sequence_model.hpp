// A model of sequences of tokens: embedding, layers each with a feed-forward block, a last norm, and the logits of the next token.
#pragma once
#include <memory>
#include <vector>

#include "cross_entropy.hpp"
#include "embedding.hpp"
#include "feed_forward.hpp"
#include "layer.hpp"

namespace tcnca::models {

struct sequence_model_config {
  index vocabulary = 20, layers = 2;
  layer_config layer;
  index hidden = 128;  ///< of the feed-forward blocks
};

/// What training needs to know of a model, whatever its layers.
template <class T, class E>
class sequence_model {
 public:
  virtual ~sequence_model() = default;
  sequence_model(sequence_model const&) = delete;
  sequence_model& operator=(sequence_model const&) = delete;

  context<T, E> c;

  /// Logits of every position of tokens [batch, length].
  virtual void forward(int const* tokens) = 0;
  /// The loss against targets [batch, length] (negative: not counted), and with `learn` all gradients. After `forward` with the same tokens.
  virtual double loss(int const* tokens, int const* targets, bool learn) = 0;
  /// The most likely next token after a position of a sequence.
  int prediction(index sequence, index position) const {
    T const* const row = c.kept[logits_] + (sequence * c.length + position) * vocabulary_;
    return int(std::max_element(row, row + vocabulary_) - row);
  }

 protected:
  sequence_model(int threads, index batch, index length, index vocabulary) : c(threads, batch, length), vocabulary_(vocabulary) {}
  index vocabulary_;
  region logits_;
};

template <class T, class E, class Layer>
class layered_model final : public sequence_model<T, E> {
  using base = sequence_model<T, E>;
  using base::c, base::logits_, base::vocabulary_;

 public:
  layered_model(int threads, index batch, index length, sequence_model_config const& config)
      : base(threads, batch, length, config.vocabulary), embedding_(c, config.vocabulary, config.layer.channels) {
    index const elements = c.rows() * config.layer.channels;
    for (index i = 0; i < config.layers; i++) {
      layer_config l = config.layer;
      l.site = uint32(4 * i);
      feed_forward_config const f{l.channels, config.hidden, l.norm, l.pre_norm, l.dropout, l.dropout, l.site + 2};
      blocks_.push_back({Layer(c, l), feed_forward<T, E>(c, f), c.kept.take(elements), c.kept.take(elements)});
    }
    norm_ = std::make_unique<norm<T, E>>(c, config.layer.norm, config.layer.channels);
    output_ = std::make_unique<linear<T, E>>(c, config.layer.channels, config.vocabulary);
    result_ = c.kept.take(elements), normed_ = c.kept.take(elements), grad_ = c.kept.take(elements);
    logits_ = c.kept.take(c.rows() * vocabulary_);
    loss_ = std::make_unique<cross_entropy<T, E>>(c, c.rows(), vocabulary_);
    c.commit();
    for (block const& b : blocks_) b.layer.reserve(c);
    c.commit_scratch();
  }

  void forward(int const* tokens) override {
    embedding_.forward(c, tokens, input(0));
    for (size i = 0; i < blocks_.size(); i++) {
      blocks_[i].layer.forward(c, input(i), c.kept[blocks_[i].middle]);
      blocks_[i].ffn.forward(c, c.kept[blocks_[i].middle], input(i + 1));
    }
    norm_->forward(c, input(blocks_.size()), c.kept[normed_]);
    output_->forward(c, c.kept[normed_], c.kept[logits_]);
  }

  double loss(int const* tokens, int const* targets, bool learn) override {
    T *const logits = c.kept[logits_], *const grad = c.kept[grad_];
    double const cost = (*loss_)(c, c.rows(), logits, targets, learn ? logits : nullptr);
    if (!learn) return cost;
    output_->backward(c, c.kept[normed_], logits, grad);
    norm_->backward(c, input(blocks_.size()), grad, grad, false);
    for (size i = blocks_.size(); i-- > 0;) {
      blocks_[i].ffn.backward(c, c.kept[blocks_[i].middle], grad);
      blocks_[i].layer.backward(c, input(i), grad);
    }
    embedding_.backward(c, tokens, grad);
    return cost;
  }

 private:
  struct block {
    Layer layer;
    feed_forward<T, E> ffn;
    region input, middle;
  };
  /// What block i reads, and block i - 1 wrote.
  T* input(size i) const { return c.kept[i < blocks_.size() ? blocks_[i].input : result_]; }

  embedding<T, E> embedding_;
  std::vector<block> blocks_;
  std::unique_ptr<norm<T, E>> norm_;
  std::unique_ptr<linear<T, E>> output_;
  std::unique_ptr<cross_entropy<T, E>> loss_;
  region result_, normed_, grad_;
};

}  // namespace tcnca::models
