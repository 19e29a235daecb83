// One model on one task.
#pragma once
#include <memory>
#include <numeric>

#include "../training/trainer.hpp"
#include "batches.hpp"
#include "load.hpp"

namespace lra {

/// Creates the model of the options for batches of `examples`.
inline std::unique_ptr<models::model> make_model(options const& o, long examples) {
  models::model_config c = o.config;
  c.batch = examples * (c.head == models::head_kind::pair_class ? 2 : 1);
  return models::make_model(c);
}

/// Accuracy on the first `count` examples. Sorted by length to reduce padding.
inline double accuracy(models::model& m, dataset const& d, long count, long size, long classes) {
  std::vector<long> order(std::size_t(std::min(count, d.examples())));
  std::iota(order.begin(), order.end(), 0L);
  std::stable_sort(order.begin(), order.end(), [&](long a, long b) { return d.longest(a) < d.longest(b); });
  batch b;
  std::vector<int> predictions(std::size_t(size), 0);
  long right = 0;
  training::notice say("lra", long(order.size()), "examples were tested");
  for (std::size_t first = 0; first < order.size(); first += std::size_t(size)) {
    gather(d, std::span(order).subspan(first, std::min(std::size_t(size), order.size() - first)), b);
    m.evaluate(b.view(), predictions.data());
    for (std::size_t i = 0; i < b.targets.size(); i++) {
      if (predictions[i] < 0 || predictions[i] >= classes)
        throw std::logic_error("lra: the model predicts an unknown class");
      right += predictions[i] == b.targets[i];
    }
    say(long(std::min(first + std::size_t(size), order.size())));
  }
  return double(right) / double(order.size());
}

class experiment {
 public:
  /// Keeps a reference to the options. Throws std::invalid_argument.
  explicit experiment(options const& o)
      : o_(o),
        data_(load(o)),
        order_(data_.training, o.config.batch, o.config.seed),
        model_(make_model(o, o.config.batch)) {
    task_.configuration = configuration(o);
    auto& r = task_.configuration;
    r.set("task", o.task).set("data", o.data.empty() ? "generated" : "files");
    r.set("train", data_.training.examples())
        .set("validation", data_.validation.examples())
        .set("test", data_.test.examples());
    if (o.data.empty() && o.task == "listops")
      r.set("depth", o.listops.depth)
          .set("arguments", o.listops.arguments)
          .set("shortest", o.listops.shortest)
          .set("longest", o.listops.longest);
    task_.next = [this](long step) {
      gather(data_.training, order_.at(step), batch_);
      return batch_.view();
    };
    task_.evaluate = [this](models::model&) {
      return training::measures{{"validation_accuracy", share(data_.validation)}};
    };
  }
  experiment(experiment const&) = delete;
  experiment& operator=(experiment const&) = delete;

  /// Trains. The last evaluation includes the accuracy on the test part and on as many training examples.
  training::outcome run() {
    training::outcome result = training::train(o_, *model_, task_);
    if (result.how == training::ending::finished || result.how == training::ending::out_of_time) {
      auto& e = result.evaluation;
      e.emplace_back("test_accuracy", share(data_.test));
      e.emplace_back("training_accuracy", share(data_.training, data_.test.examples()));
      e.emplace_back("majority", majority(data_.test, o_.config.classes));
      if (o_.task == "listops")
        e.emplace_back("first_token", by_first_token(data_.training, data_.test, o_.config.classes));
    }
    return result;
  }

 private:
  double share(dataset const& d) { return share(d, d.examples()); }
  double share(dataset const& d, long count) { return accuracy(*model_, d, count, o_.config.batch, o_.config.classes); }

  options const& o_;
  splits data_;
  batches order_;
  std::unique_ptr<models::model> model_;
  batch batch_;
  training::task task_;
};

}  // namespace lra
