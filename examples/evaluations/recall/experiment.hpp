// One model on one associative recall task.
#pragma once
#include <memory>
#include <vector>

#include "../training/trainer.hpp"
#include "options.hpp"

namespace recall {

namespace models = tcnca::models;

class experiment {
 public:
  /// Keeps a reference to the options. Throws std::invalid_argument for an unknown model.
  explicit experiment(options& o)
      : o_(o),
        order_(std::size_t(std::max(1L, o.train)), o.config.seed),
        tokens_(std::size_t(o.config.batch * o.data.positions())),
        targets_(tokens_.size()),
        predictions_(tokens_.size()) {
    o.config.head = models::head_kind::next_token;
    o.config.vocabulary = o.data.vocabulary, o.config.length = o.data.positions();
    model_ = models::make_model(o.config);
    task_.configuration = training::configuration(o);
    task_.configuration.set("form", o.form)
        .set("task_length", o.data.length)
        .set("pairs", o.data.pairs)
        .set("train", o.train)
        .set("test", o.test);
    task_.next = [this](long step) {
      auto const first = std::uint64_t(step - 1) * std::uint64_t(o_.config.batch);
      return make(
          o_.config.batch,
          [&](long i) {
            auto const at = first + std::uint64_t(i);
            return o_.train == 0 ? at : std::uint64_t(order_(at));
          },
          o_.config.seed);
    };
    task_.evaluate = [this](models::model&) {
      return training::measures{{"test_accuracy", accuracy(o_.test, test_seed())}};
    };
    if (o.until > 0) task_.enough = [this](training::measures const& m) { return m.front().second >= o_.until; };
  }
  experiment(experiment const&) = delete;
  experiment& operator=(experiment const&) = delete;

  training::outcome run() { return training::train(o_, *model_, task_); }
  models::model& model() { return *model_; }
  training::record const& configuration() const { return task_.configuration; }

  /// The fraction of the queries in `count` sequences that the model answers.
  double accuracy(long count, std::uint64_t seed) {
    long right = 0, asked = 0;
    training::notice say(o_.program, count, "test sequences were answered");
    long const positions = o_.data.positions();
    for (long first = 0; first < count; first += o_.config.batch) {
      long const sequences = std::min(o_.config.batch, count - first);
      models::examples const e = make(
          sequences, [&](long i) { return std::uint64_t(first + i); }, seed);
      model_->evaluate(e, predictions_.data());
      say(first + sequences);
      for (long i = 0; i < sequences; i++)
        for (long t = o_.data.kind == form::single ? positions - 1 : 0; t < positions; t++) {
          auto const at = std::size_t(i * positions + t);
          if (targets_[at] >= 0) asked++, right += predictions_[at] == targets_[at];
        }
    }
    return double(right) / double(asked);
  }
  std::uint64_t test_seed() const { return mix(o_.config.seed, ~std::uint64_t(0)); }

 private:
  template <class Number>
  models::examples make(long sequences, Number const& number, std::uint64_t seed) {
    long const positions = o_.data.positions();
    for (long i = 0; i < sequences; i++)
      make_example(o_.data, seed, number(i), tokens_.data() + i * positions, targets_.data() + i * positions);
    return {sequences, positions, tokens_.data(), targets_.data(), nullptr};
  }

  options& o_;
  training::passes order_;
  std::vector<int> tokens_, targets_, predictions_;
  std::unique_ptr<models::model> model_;
  training::task task_;
};

}  // namespace recall
