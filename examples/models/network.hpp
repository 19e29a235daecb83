// A complete model: embedding, layers with feed-forward blocks, a final norm, a head and the optimizer.
#pragma once
#include <chrono>
#include <cmath>
#include <functional>

#include "adam.hpp"
#include "cross_entropy.hpp"
#include "embedding.hpp"
#include "feed_forward.hpp"
#include "head.hpp"
#include "layer.hpp"
#include "saved_state.hpp"

namespace tcnca::models {

template <class T, class E>
using layer_maker = std::function<std::unique_ptr<any_layer<T, E>>(context<T, E>&, layer_config const&)>;

/// All memory is planned and allocated in the constructor, except the state of continued sequences, which is allocated
/// on first use, and more workspace for packed sequences where they need it.
template <class T, class E>
class network final : public model {
 public:
  network(model_config const& config, layer_maker<T, E> const& make_layer)
      : config_(config),
        c_(config.threads, config.batch, config.length),
        embedding_(c_, config.vocabulary, config.channels, config.embedding) {
    index_t const elements = c_.rows() * config.channels;
    for (index_t i = 0; i < config.layers; i++) {
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
      feed_forward_config const f{l.channels, config.hidden,         l.norm,    l.pre_norm,
                                  l.dropout,  config.hidden_dropout, l.site + 2};
      auto first = make_layer(c_, l);
      blocks_.push_back({std::move(first), feed_forward<T, E>(c_, f), c_.kept.take(elements), c_.kept.take(elements)});
    }
    if (config.pre_norm) norm_ = std::make_unique<norm<T, E>>(c_, config.norm, config.channels);
    head_ = make_head(c_, config);
    loss_ = std::make_unique<cross_entropy<T, E>>(c_, head_->rows(c_), outcomes());
    result_ = c_.kept.take(elements), normed_ = c_.kept.take(elements), grad_ = c_.kept.take(elements);
    logits_ = c_.kept.take(head_->rows(c_) * outcomes());
    tokens_ = c_.integers.take(c_.rows()), targets_ = c_.integers.take(head_->rows(c_)),
    predictions_ = c_.integers.take(head_->rows(c_));
    c_.commit();
    for (block const& b : blocks_) b.first->reserve(c_);
    c_.commit_scratch();
    optimiser_ = std::make_unique<adam<T, E>>(
        c_, adam_config{.beta1 = config.beta1, .beta2 = config.beta2, .decay = config.decay, .clip = config.clip});
    c_.initialise(config.seed);
    c_.seed = config.seed;
  }

  step_result learn(examples const& e, long step, double rate) override {
    begin(e, true);
    c_.training = true, c_.step = uint64(step);
    last_norm_ = 0;
    step_result result;
    auto const start = clock::now();
    forward({});
    last_loss_ = result.loss = loss(e, c_.kept[logits_], nullptr);
    auto const forwarded = clock::now();
    result.forward_seconds = seconds(start, forwarded);
    if (!std::isfinite(result.loss)) return result;
    backward();
    T any;
    c_.download(c_.gradients.data(), &any, 1);  // waits for the backward pass, so that it is timed separately
    auto const backwarded = clock::now();
    result.backward_seconds = seconds(forwarded, backwarded);
    last_norm_ = result.grad_norm = optimiser_->step(c_, rate);
    result.update_seconds = seconds(backwarded, clock::now());
    return result;
  }

  double evaluate(examples const& e, int* predictions) override {
    begin(e, false);
    forward({});
    return score(e, predictions);
  }

  void reset_state() override {
    next_token_only();
    if (slots_ > 0 || planned_ == 0) plan_states(config_.batch, false), slots_ = 0;
    fill(c_.executor(), index_t(states_.count()), T(0), states_.data());
    position_ = 0, carried_ = 0;
  }
  double evaluate_continued(examples const& e, int* predictions) override {
    advance(e);
    return score(e, predictions);
  }
  void read(examples const& e, float* logits) override {
    for (index_t first = 0; first < e.length; first += config_.length) {
      index_t const count = std::min(index_t(config_.length), e.length - first);
      piece_.resize(size_t(e.sequences * count));
      for (index_t s = 0; s < e.sequences; s++)
        std::copy_n(e.tokens + s * e.length + first, count, piece_.data() + s * count);
      advance({e.sequences, long(count), piece_.data(), nullptr, nullptr});
    }
    for (index_t s = 0; s < c_.batch; s++) copy_logits((s + 1) * c_.length - 1, 1, logits + s * config_.vocabulary);
  }

  void logits(examples const& e, float* logits) override {
    next_token_only();
    begin(e, false);
    forward({});
    copy_logits(0, c_.rows(), logits);
  }
  void make_slots(long slots) override {
    next_token_only();
    require_that(slots >= 1 && slots <= (1L << 30), [&] { return std::to_string(slots) + " slots are not possible"; });
    index_t const rows = config_.batch * config_.length;  // as many sequences as a call may have
    slot_table_ = {}, position_table_ = {};
    slot_numbers_ = slot_table_.take(rows), positions_ = position_table_.take(rows);
    slot_table_.commit(), position_table_.commit();
    slots_ = 0;
    plan_states(slots, true);
    slots_ = slots;
  }
  void read_slots(slot_batch const& b, float* logits) override {
    begin(b);
    for (index_t s = 0; s < b.sequences; s++)
      if (b.positions[s] == 0)
        for (block const& each : blocks_) each.first->clear_state(c_, states_, b.slots[s]);
    forward(in_slots(slots_));
    copy_logits(0, c_.rows(), logits);
  }
  std::size_t state_bytes() const override { return planned_ > 0 ? states_.bytes() / size_t(planned_) : 0; }

  std::string not_finite() const override {
    index_t const n = c_.rows(), d = config_.channels;
    if (!finite(input(0), n * d)) return "embedding";
    for (size_t i = 0; i < blocks_.size(); i++) {
      std::string const name = "layer " + std::to_string(i + 1);
      if (!finite(c_.kept[blocks_[i].first->mixed()], n * d))
        return name + (config_.mixer == mixer_kind::convolution ? " (convolution)" : " (EMA)");
      if (!finite(c_.kept[blocks_[i].first->attended()], n * config_.value_dim)) return name + " (attention)";
      if (!finite(c_.kept[blocks_[i].middle], n * d)) return name + " (gates)";
      if (!finite(input(i + 1), n * d)) return name + " (feed-forward)";
    }
    if (!std::isfinite(last_loss_)) return "the loss";
    return std::isfinite(last_norm_) ? "" : "a gradient";
  }

  std::vector<saved_part> save() const override { return save_state(c_, state_arrays(), optimiser_->steps()); }
  void load(std::vector<saved_part> const& parts) override {
    optimiser_->steps() = load_state(c_, state_arrays(), parts);
  }

  std::size_t parameter_count() const override { return c_.parameter_count(); }
  std::size_t memory_bytes() const override {
    return c_.bytes() + optimiser_->bytes() + (planned_ > 0 ? states_.bytes() : 0) +
           (slots_ > 0 ? slot_table_.bytes() + position_table_.bytes() : 0);
  }

 private:
  using clock = std::chrono::steady_clock;
  static double seconds(clock::time_point from, clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }

  struct block {
    std::unique_ptr<any_layer<T, E>> first;
    feed_forward<T, E> second;
    region input, middle;
  };
  /// The input of block i and output of block i - 1.
  T* input(size_t i) const { return c_.kept[i < blocks_.size() ? blocks_[i].input : result_]; }
  /// The input of the head.
  T* last() const { return norm_ ? c_.kept[normed_] : input(blocks_.size()); }

  /// Number of tokens or classes to predict.
  index_t outcomes() const { return config_.head == head_kind::next_token ? config_.vocabulary : config_.classes; }

  static void require_that(bool holds, auto const& sentence) {
    if (!holds) throw std::invalid_argument(sentence());
  }
  static std::string text(auto n) { return std::to_string(n); }

  /// Checks the arguments of a call and uploads the batch.
  void begin(examples const& e, bool targets) {
    auto const at_most = [](long n, long most) { return n >= 1 && n <= most; };
    if (e.offsets) {
      require_that(config_.head == head_kind::next_token && e.lengths == nullptr, [] {
        return std::string("packed sequences are for models of the next token, and have no padding");
      });
      pack(e.sequences, e.offsets);
    } else {
      require_that(at_most(e.sequences, config_.batch),
                   [&] { return text(e.sequences) + " sequences, but the model takes 1 to " + text(config_.batch); });
      require_that(at_most(e.length, config_.length), [&] {
        return "a length of " + text(e.length) + ", but the model takes 1 to " + text(config_.length);
      });
      c_.batch = e.sequences, c_.length = e.length;
      c_.set_offsets(nullptr, 0);
    }
    require_that(config_.head != head_kind::pair_class || e.sequences % 2 == 0,
                 [] { return std::string("an odd number of sequences, but the model takes pairs"); });
    require_that(e.tokens != nullptr, [] { return std::string("there are no tokens"); });
    require_that(!targets || e.targets != nullptr, [] { return std::string("training needs targets"); });
    check_tokens(e.tokens);
    for (index_t i = 0; e.targets && i < head_->rows(c_); i++)
      require_that(e.targets[i] < outcomes(),
                   [&] { return "a target " + text(e.targets[i]) + ", but valid are 0 to " + text(outcomes() - 1); });
    c_.set_lengths(e.lengths);
    c_.upload(e.tokens, c_.integers[tokens_], size_t(c_.rows()));
    if (e.targets) c_.upload(e.targets, c_.integers[targets_], size_t(head_->rows(c_)));
    c_.training = false;
    if (!e.offsets) return;
    for (block const& b : blocks_) b.first->reserve(c_);
    c_.commit_scratch();
  }
  /// Sets the extents of packed sequences.
  void pack(index_t sequences, int const* offsets) {
    index_t const most = config_.batch * config_.length;
    require_that(sequences >= 1 && sequences <= most && offsets[0] == 0 && offsets[sequences] <= most,
                 [&] { return "packed sequences must begin at 0, and have 1 to " + text(most) + " tokens"; });
    c_.batch = 1, c_.length = offsets[sequences];
    c_.set_offsets(offsets, sequences);
  }
  void check_tokens(int const* tokens) const {
    index_t const all = config_.embedding == embedding_kind::table ? config_.vocabulary : 256;
    for (index_t i = 0; i < c_.rows(); i++)
      require_that(tokens[i] >= 0 && tokens[i] < all,
                   [&] { return "a token " + text(tokens[i]) + ", but valid are 0 to " + text(all - 1); });
  }
  void begin(slot_batch const& b) {
    if (slots_ == 0) throw std::logic_error("there are no slots");
    if (b.offsets) {
      pack(b.sequences, b.offsets);
    } else {
      index_t const rows = config_.batch * config_.length;
      require_that(b.length >= 1 && b.length <= config_.length, [&] {
        return "pieces of " + text(b.length) + " tokens, but the model takes 1 to " + text(config_.length);
      });
      require_that(b.sequences >= 1 && b.sequences <= rows / b.length, [&] {
        return text(b.sequences) + " pieces of " + text(b.length) + " tokens, but the model takes " + text(rows) +
               " tokens";
      });
      c_.batch = b.sequences, c_.length = b.length;
      c_.set_offsets(nullptr, 0);
    }
    require_that(c_.longest() <= config_.length, [&] {
      return "a piece of " + text(c_.longest()) + " tokens, but the model takes 1 to " + text(config_.length);
    });
    require_that(b.tokens != nullptr && b.slots != nullptr && b.positions != nullptr,
                 [] { return std::string("there are no tokens, slots or positions"); });
    for (index_t s = 0; s < b.sequences; s++) {
      require_that(b.slots[s] >= 0 && b.slots[s] < slots_,
                   [&] { return "a slot " + text(b.slots[s]) + ", but valid are 0 to " + text(slots_ - 1); });
      require_that(b.positions[s] >= 0, [] { return std::string("a negative position"); });
    }
    check_tokens(b.tokens);
    c_.set_lengths(nullptr);
    c_.upload(b.tokens, c_.integers[tokens_], size_t(c_.rows()));
    c_.upload(b.slots, slot_table_[slot_numbers_], size_t(b.sequences));
    c_.upload(b.positions, position_table_[positions_], size_t(b.sequences));
    c_.training = false;
    if (!b.offsets) return;
    for (block const& each : blocks_) each.first->reserve_piece(c_, in_slots(slots_));
    c_.commit_scratch();
  }
  /// Logits of rows of the last batch.
  void copy_logits(index_t first, index_t count, float* to) const {
    index_t const v = config_.vocabulary;
    T const* const from = c_.kept[logits_] + first * v;
    if constexpr (same<T, float>) {
      c_.download(from, to, size_t(count * v));
    } else {
      std::vector<T> all(static_cast<size_t>(count * v));
      c_.download(from, all.data(), all.size());
      for (size_t i = 0; i < all.size(); i++) to[i] = float(all[i]);
    }
  }

  void forward(passage<T, E> const& at) {
    embedding_.forward(c_, c_.integers[tokens_], input(0));
    for (size_t i = 0; i < blocks_.size(); i++) {
      blocks_[i].first->forward(c_, input(i), c_.kept[blocks_[i].middle], at);
      blocks_[i].second.forward(c_, c_.kept[blocks_[i].middle], input(i + 1));
    }
    if (norm_) norm_->forward(c_, input(blocks_.size()), c_.kept[normed_]);
    head_->forward(c_, last(), c_.kept[logits_]);
  }
  double loss(examples const& e, T* grad_logits, int* predictions) {
    return (*loss_)(c_, head_->rows(c_), c_.kept[logits_], e.targets ? c_.integers[targets_] : nullptr, grad_logits,
                    predictions);
  }
  /// The loss has replaced the logits by their gradient.
  void backward() {
    T* const grad = c_.kept[grad_];
    head_->backward(c_, last(), c_.kept[logits_], grad);
    if (norm_) norm_->backward(c_, input(blocks_.size()), grad, grad, false);
    for (size_t i = blocks_.size(); i-- > 0;) {
      blocks_[i].second.backward(c_, c_.kept[blocks_[i].middle], grad);
      blocks_[i].first->backward(c_, input(i), grad);
    }
    embedding_.backward(c_, c_.integers[tokens_], grad);
  }
  double score(examples const& e, int* predictions) {
    last_loss_ = loss(e, nullptr, predictions ? c_.integers[predictions_] : nullptr);
    if (predictions) c_.download(c_.integers[predictions_], predictions, size_t(head_->rows(c_)));
    return last_loss_;
  }

  void next_token_only() const {
    if (config_.head != head_kind::next_token)
      throw std::logic_error("only a model of the next token reads sequences in pieces");
  }
  /// The next piece of the sequences of a batch, which all have the same position, or of those in slots.
  passage<T, E> continued() const { return {.states = &states_, .state_rows = c_.batch, .position = position_}; }
  passage<T, E> in_slots(index_t slots) const {
    return {.states = &states_,
            .state_rows = slots,
            .slots = contiguous<int32 const>(slot_table_[slot_numbers_], c_.sequences()),
            .positions = contiguous<index_t const>(position_table_[positions_], c_.sequences())};
  }
  /// Allocates the states of so many sequences, or slots of a pool, and workspace for pieces of one of them or of a
  /// batch.
  void plan_states(index_t sequences, bool in_pool) {
    planned_ = 0;
    states_ = {};
    c_.batch = sequences;
    for (block& b : blocks_) b.first->plan_states(c_, states_);
    states_.commit();
    c_.set_offsets(nullptr, 0);
    for (index_t length :
         {index_t(config_.length), index_t(4), index_t(3), index_t(2), index_t(1)}) {  // short pieces use other kernels
      c_.length = std::min(index_t(config_.length), length);
      for (index_t batch : {index_t(1), std::min(sequences, config_.batch * config_.length / c_.length)}) {
        c_.batch = batch;
        for (block const& b : blocks_) b.first->reserve_piece(c_, in_pool ? in_slots(sequences) : continued());
      }
    }
    c_.commit_scratch();
    planned_ = sequences;
  }
  /// Processes a piece and updates the state.
  void advance(examples const& e) {
    next_token_only();
    require_that(e.offsets == nullptr, [] { return std::string("packed sequences continue in slots: read_slots"); });
    if (slots_ > 0 || planned_ == 0) reset_state();
    if (carried_ != 0 && carried_ != e.sequences)
      throw std::invalid_argument(std::to_string(e.sequences) + " sequences continue, but the last call had " +
                                  std::to_string(carried_) + " before");
    begin(e, false);
    forward(continued());
    position_ += e.length, carried_ = e.sequences;
  }

  bool finite(T const* p, index_t n) const {
    std::vector<T> host(static_cast<size_t>(n));
    c_.download(p, host.data(), host.size());
    T sum = 0;  // a sum of zeros, or NaN
    for (T v : host) sum += T(0) * v;
    return sum == T(0);
  }

  std::vector<state_array<T>> state_arrays() const {
    size_t const n = c_.values.count();
    return {{"parameters", c_.values.data(), n},
            {"statistics", c_.statistics.data(), c_.statistics.count()},
            {"first moments", optimiser_->first(), n},
            {"second moments", optimiser_->second(), n}};
  }

  model_config config_;
  context<T, E> c_;
  embedding<T, E> embedding_;
  std::vector<block> blocks_;
  std::unique_ptr<norm<T, E>> norm_;
  std::unique_ptr<head<T, E>> head_;
  std::unique_ptr<cross_entropy<T, E>> loss_;
  std::unique_ptr<adam<T, E>> optimiser_;
  region result_, normed_, grad_, logits_, tokens_, targets_, predictions_;
  double last_loss_ = 0, last_norm_ = 0;  ///< of the last step

  memory_of<T, E> states_;
  index_t planned_ = 0, slots_ = 0;  ///< sequences that have states; slots, if these are a pool
  pool<int, E> slot_table_;          ///< of a batch of slots, in the executor's memory
  pool<index_t, E> position_table_;
  region slot_numbers_, positions_;
  index_t position_ = 0, carried_ = 0;  ///< of the continued sequences
  std::vector<int> piece_;
};

}  // namespace tcnca::models
