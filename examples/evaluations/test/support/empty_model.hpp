// The base of models that tests use in place of a network: they override what a test calls.
#pragma once
#include "../../../models/model.hpp"

namespace tcnca::testing {

class empty_model : public models::model {
 public:
  models::step_result learn(models::examples const&, long, double) override { return {}; }
  double evaluate(models::examples const&, int*) override { return 0; }
  void reset_state() override {}
  double evaluate_continued(models::examples const&, int*) override { return 0; }
  void read(models::examples const&, float*) override {}
  void logits(models::examples const&, float*) override {}
  void make_slots(long) override {}
  void read_slots(models::slot_batch const&, float*) override {}
  std::size_t state_bytes() const override { return 0; }
  std::string not_finite() const override { return ""; }
  std::vector<models::saved_part> save() const override { return {}; }
  void load(std::vector<models::saved_part> const&) override {}
  std::size_t parameter_count() const override { return 0; }
  std::size_t memory_bytes() const override { return 0; }
};

}  // namespace tcnca::testing
