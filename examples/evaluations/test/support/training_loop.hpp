// A model with a single number as state, and training runs with it.
#pragma once
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../../training/random.hpp"
#include "../../training/trainer.hpp"
#include "empty_model.hpp"
#include "training.hpp"

namespace tcnca::testing {

using namespace tcnca::training;
namespace fs = std::filesystem;

/// A model whose number depends on tokens, step and rate, and which becomes non-finite on request.
class number_model : public empty_model {
 public:
  static constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  long loss_fails = 0, gradient_fails = 0;  ///< fail at this step
  double value = 1, evaluated = 0;

  models::step_result learn(models::examples const& e, long step, double rate) override {
    double const target = double(e.tokens[0]) / double(step), off = value - target;
    if (step == loss_fails) return {.loss = nan, .grad_norm = 1};
    if (step == gradient_fails) return {.loss = 1, .grad_norm = std::numeric_limits<double>::infinity()};
    value -= rate * off;
    return {.loss = off * off, .grad_norm = std::abs(off)};
  }
  std::string not_finite() const override { return "layer 3 (attention)"; }
  std::vector<models::saved_part> save() const override {
    auto const bytes = reinterpret_cast<char const*>(&value);
    return {{"value", {bytes, bytes + sizeof value}}};
  }
  void load(std::vector<models::saved_part> const& parts) override {
    if (parts.size() != 1 || parts[0].bytes.size() != sizeof value)
      throw std::invalid_argument("its parts are not those of this model");
    std::memcpy(&value, parts[0].bytes.data(), sizeof value);
  }
  std::size_t parameter_count() const override { return 1; }
  std::size_t memory_bytes() const override { return sizeof value; }
};

class training_loop : public training_test {
 protected:
  training_loop() {
    o.program = "test";
    o.rates = {.kind = "linear", .rate = 0.1, .warmup = 3, .steps = 20};
    o.every = 4;
    t.next = [this](long step) {
      token = int(mix(5, std::uint64_t(step)) % 7);
      return models::examples{1, 1, &token, &token, nullptr};
    };
    t.evaluate = [](models::model& m) { return measures{{"value", static_cast<number_model&>(m).value}}; };
  }
  void SetUp() override {
    training_test::SetUp();
    o.output = folder / "run";
    t.configuration = configuration(o);
  }

  fs::path file(char const* name) const { return fs::path(o.output) / name; }
  /// The log without times.
  static std::string log_of(fs::path const& run) {
    std::string all;
    for (record r : read_log(run / "log.jsonl")) {
      for (char const* const time :
           {"seconds", "tokens_per_second", "forward_seconds", "backward_seconds", "update_seconds"})
        r.erase(time);
      all += r.line() + "\n";
    }
    return all;
  }
  /// The output and the exit status of a run.
  std::pair<std::string, outcome> said(models::model& m) {
    ::testing::internal::CaptureStderr();
    outcome const r = train(o, m, t);
    return {::testing::internal::GetCapturedStderr(), r};
  }
  std::string refusal(models::model& m) {
    return sentence<std::invalid_argument>([&] { train(o, m, t); });
  }

  options o;
  task t;
  int token = 0;
};

}  // namespace tcnca::testing
