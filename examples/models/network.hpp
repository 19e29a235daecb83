// A whole model: embedding, layers each with a feed-forward block, a last norm and a head; with its optimiser, behind the face of model.hpp.
#pragma once
#include <chrono>
#include <cmath>
#include <cstring>
#include <functional>

#include "adam.hpp"
#include "cross_entropy.hpp"
#include "embedding.hpp"
#include "feed_forward.hpp"
#include "layer.hpp"

namespace tcnca::models {

template <class T, class E>
using layer_maker = std::function<std::unique_ptr<any_layer<T, E>>(context<T, E>&, layer_config const&)>;

/// All memory is planned and allocated in the constructor, but for what sequences in pieces remember: that is when first asked for.
template <class T, class E>
class network final : public model {
 public:
  network(model_config const& config, layer_maker<T, E> const& make_layer)
      : config_(config), c_(config.threads, config.batch, config.length), embedding_(c_, config.vocabulary, config.channels) {
    index const elements = c_.rows() * config.channels;
    for (index i = 0; i < config.layers; i++) {
      layer_config const l{.channels = config.channels,
                           .value_dim = config.value_dim,
                           .key_dim = config.key_dim,
                           .chunk = config.chunk,
                           .norm = config.norm,
                           .pre_norm = config.pre_norm,
                           .bias = config.bias,
                           .dropout = config.dropout,
                           .attention_dropout = config.attention_dropout,
                           .site = uint32(4 * i)};
      feed_forward_config const f{l.channels, config.hidden, l.norm, l.pre_norm, l.dropout, l.site + 2};
      auto first = make_layer(c_, l);
      blocks_.push_back({std::move(first), feed_forward<T, E>(c_, f), c_.kept.take(elements), c_.kept.take(elements)});
    }
    if (config.pre_norm) norm_ = std::make_unique<norm<T, E>>(c_, config.norm, config.channels);
    output_ = std::make_unique<linear<T, E>>(c_, config.channels, config.vocabulary);
    result_ = c_.kept.take(elements), normed_ = c_.kept.take(elements), grad_ = c_.kept.take(elements);
    logits_ = c_.kept.take(c_.rows() * config.vocabulary), costs_ = c_.kept.take(c_.rows());
    c_.commit();
    for (block const& b : blocks_) b.first->reserve(c_);
    c_.commit_scratch();
    optimiser_ = std::make_unique<adam<T, E>>(
        c_, adam_config{.beta1 = config.beta1, .beta2 = config.beta2, .decay = config.decay, .clip = config.clip});
    c_.initialise(config.seed);
    c_.seed = config.seed;
  }

  learned learn(examples const& e, long step, double rate) override {
    begin(e, true);
    c_.training = true, c_.step = uint64(step);
    learned result;
    auto const start = clock::now();
    forward(e, {});
    result.loss = loss(e, true);
    auto const forwarded = clock::now();
    result.forward_seconds = seconds(start, forwarded);
    if (!std::isfinite(result.loss)) return result;
    backward(e);
    auto const backwarded = clock::now();
    result.backward_seconds = seconds(forwarded, backwarded);
    result.grad_norm = optimiser_->step(c_, rate);
    result.update_seconds = seconds(backwarded, clock::now());
    return result;
  }

  double evaluate(examples const& e, int* predictions) override {
    begin(e, false);
    forward(e, {});
    return judge(e, predictions);
  }

  void forget() override {
    next_token_only();
    if (!states_planned_) plan_states();
    std::fill_n(states_.data(), states_.count(), T(0));
    position_ = 0, carried_ = 0;
  }
  double go_on(examples const& e, int* predictions) override {
    advance(e);
    return judge(e, predictions);
  }
  void read(examples const& e, float* logits) override {
    for (index first = 0; first < e.length; first += config_.length) {
      index const count = std::min(index(config_.length), e.length - first);
      piece_.resize(size(e.sequences * count));
      for (index s = 0; s < e.sequences; s++) std::copy_n(e.tokens + s * e.length + first, count, piece_.data() + s * count);
      advance({e.sequences, long(count), piece_.data(), nullptr, nullptr});
    }
    index const v = config_.vocabulary;
    for (index s = 0; s < c_.batch; s++) std::copy_n(c_.kept[logits_] + ((s + 1) * c_.length - 1) * v, v, logits + s * v);
  }

  std::string not_finite() const override {
    index const n = c_.rows(), d = config_.channels;
    if (!finite(input(0), n * d)) return "embedding";
    for (size i = 0; i < blocks_.size(); i++) {
      std::string const name = "layer " + std::to_string(i + 1);
      if (!finite(c_.kept[blocks_[i].first->mixed()], n * d))
        return name + (config_.mixer == mixer_kind::convolution ? " (convolution)" : " (average)");
      if (!finite(c_.kept[blocks_[i].first->attended()], n * config_.value_dim)) return name + " (attention)";
      if (!finite(c_.kept[blocks_[i].middle], n * d)) return name + " (gates)";
      if (!finite(input(i + 1), n * d)) return name + " (feed-forward)";
    }
    if (!finite(c_.kept[costs_], n)) return "the loss";
    return finite(c_.gradients.data(), index(c_.gradients.count())) ? "" : "a gradient";
  }

  std::vector<saved_part> save() const override {
    std::vector<saved_part> parts;
    for (auto const& [name, data, bytes] : const_cast<network*>(this)->lasting()) {
      auto const* const from = static_cast<char const*>(data);
      parts.push_back({name, std::vector<char>(from, from + bytes)});
    }
    return parts;
  }
  void load(std::vector<saved_part> const& parts) override {
    auto const wanted = lasting();
    auto const wrong = [](std::string const& what) { return std::invalid_argument("what was saved is not of a model of this configuration: " + what); };
    if (parts.size() != wanted.size()) throw wrong(std::to_string(parts.size()) + " parts where " + std::to_string(wanted.size()) + " are due");
    for (size i = 0; i < wanted.size(); i++) {
      if (parts[i].name != wanted[i].name) throw wrong("the part \"" + parts[i].name + "\" where \"" + wanted[i].name + "\" is due");
      if (parts[i].bytes.size() != wanted[i].bytes)
        throw wrong("the part \"" + parts[i].name + "\" has " + std::to_string(parts[i].bytes.size()) + " bytes where " + std::to_string(wanted[i].bytes) +
                    " are due");
    }
    for (size i = 0; i < wanted.size(); i++) std::memcpy(wanted[i].data, parts[i].bytes.data(), wanted[i].bytes);
  }

  std::size_t parameter_count() const override { return c_.parameter_count(); }
  std::size_t memory_bytes() const override {
    size const elements = c_.values.count() + c_.gradients.count() + c_.kept.count() + c_.temporary.count() + states_.count();
    return elements * sizeof(T) + c_.scratch().bytes + optimiser_->memory_bytes();
  }

 private:
  using clock = std::chrono::steady_clock;
  static double seconds(clock::time_point from, clock::time_point to) { return std::chrono::duration<double>(to - from).count(); }

  struct block {
    std::unique_ptr<any_layer<T, E>> first;
    feed_forward<T, E> second;
    region input, middle;
  };
  /// What block i reads, and block i - 1 wrote.
  T* input(size i) const { return c_.kept[i < blocks_.size() ? blocks_[i].input : result_]; }
  /// What the head reads.
  T* last() const { return norm_ ? c_.kept[normed_] : input(blocks_.size()); }

  /// Checks what a call was given, and makes it the step at hand.
  void begin(examples const& e, bool targets) {
    auto const require_that = [](bool holds, std::string const& sentence) {
      if (!holds) throw std::invalid_argument(sentence);
    };
    auto const at_most = [](long n, long most) { return n >= 1 && n <= most; };
    require_that(at_most(e.sequences, config_.batch), std::to_string(e.sequences) + " sequences, where the model takes 1 to " + std::to_string(config_.batch));
    require_that(at_most(e.length, config_.length), "sequences of length " + std::to_string(e.length) + ", where the model takes 1 to " +
                                                        std::to_string(config_.length));
    require_that(e.tokens != nullptr, "there are no tokens");
    require_that(!targets || e.targets != nullptr, "there is nothing to learn: no targets");
    c_.batch = e.sequences, c_.length = e.length;
    for (index i = 0; i < c_.rows(); i++)
      require_that(e.tokens[i] >= 0 && e.tokens[i] < config_.vocabulary,
                   "token " + std::to_string(e.tokens[i]) + ", where the vocabulary ends before " + std::to_string(config_.vocabulary));
    for (index i = 0; e.targets && i < c_.rows(); i++)
      require_that(e.targets[i] < config_.vocabulary,
                   "target " + std::to_string(e.targets[i]) + ", where the vocabulary ends before " + std::to_string(config_.vocabulary));
    c_.training = false;
  }

  void forward(examples const& e, passage<T, E> const& at) {
    embedding_.forward(c_, e.tokens, input(0));
    for (size i = 0; i < blocks_.size(); i++) {
      blocks_[i].first->forward(c_, input(i), c_.kept[blocks_[i].middle], at);
      blocks_[i].second.forward(c_, c_.kept[blocks_[i].middle], input(i + 1));
    }
    if (norm_) norm_->forward(c_, input(blocks_.size()), c_.kept[normed_]);
    output_->forward(c_, last(), c_.kept[logits_]);
  }
  double loss(examples const& e, bool learning) {
    return cross_entropy(c_, config_.vocabulary, c_.kept[logits_], e.targets, c_.kept[costs_], learning ? c_.kept[logits_] : nullptr);
  }
  /// The loss left the gradient of the logits in their memory.
  void backward(examples const& e) {
    T* const grad = c_.kept[grad_];
    output_->backward(c_, last(), c_.kept[logits_], grad);
    if (norm_) norm_->backward(c_, input(blocks_.size()), grad, grad, false);
    for (size i = blocks_.size(); i-- > 0;) {
      blocks_[i].second.backward(c_, c_.kept[blocks_[i].middle], grad);
      blocks_[i].first->backward(c_, input(i), grad);
    }
    embedding_.backward(c_, e.tokens, grad);
  }
  double judge(examples const& e, int* predictions) {
    index const v = config_.vocabulary;
    for (index r = 0; predictions && r < c_.rows(); r++) {
      T const* const row = c_.kept[logits_] + r * v;
      predictions[r] = int(std::max_element(row, row + v) - row);
    }
    return e.targets ? loss(e, false) : 0;
  }

  void next_token_only() const {
    if (config_.head != head_kind::next_token) throw std::logic_error("only a model of the next token reads sequences in pieces");
  }
  void plan_states() {
    c_.batch = config_.batch, c_.length = config_.length;
    for (block& b : blocks_) b.first->plan_states(c_, states_);
    states_.commit();
    for (index length : {index(config_.length), index(4), index(3), index(2), index(1)}) {  // the shortest take ways of their own
      c_.length = std::min(index(config_.length), length);
      for (block const& b : blocks_) b.first->reserve(c_, states_);
    }
    c_.commit_scratch();
    states_planned_ = true;
  }
  /// A piece: goes through the layers and is remembered.
  void advance(examples const& e) {
    next_token_only();
    if (!states_planned_) forget();
    if (carried_ != 0 && carried_ != e.sequences)
      throw std::invalid_argument(std::to_string(e.sequences) + " sequences go on, where there were " + std::to_string(carried_) + " before");
    begin(e, false);
    forward(e, {&states_, position_});
    position_ += e.length, carried_ = e.sequences;
  }

  static bool finite(T const* p, index n) {
    T sum = 0;  // of zeros, unless something is not finite
    for (index i = 0; i < n; i++) sum += T(0) * p[i];
    return sum == T(0);
  }

  /// What `save` saves and `load` loads.
  struct memory {
    std::string name;
    void* data;
    size bytes;
  };
  std::vector<memory> lasting() {
    size const bytes = c_.values.count() * sizeof(T);
    return {{"parameters", c_.values.data(), bytes},
            {"first moments", optimiser_->first(), bytes},
            {"second moments", optimiser_->second(), bytes},
            {"steps", &optimiser_->steps(), sizeof(index)}};
  }

  model_config config_;
  context<T, E> c_;
  embedding<T, E> embedding_;
  std::vector<block> blocks_;
  std::unique_ptr<norm<T, E>> norm_;
  std::unique_ptr<linear<T, E>> output_;
  std::unique_ptr<adam<T, E>> optimiser_;
  region result_, normed_, grad_, logits_, costs_;

  memory_of<T, E> states_;
  bool states_planned_ = false;
  index position_ = 0, carried_ = 0;  ///< of the sequences in pieces
  std::vector<int> piece_;
};

}  // namespace tcnca::models
