// The fixture of attention_vs_gemm: the library and its baselines on the same memory, for one problem and element type.
#pragma once
#include <string>
#include <vector>

#include "../../support/attention_problem.hpp"
#include "../../support/contender.hpp"

namespace tcnca::bench {

enum class part { q, k, v, grad_o, o, grad_q, grad_k, grad_v };

/// Contenders write o, or the gradients, which read() returns. A backward contender has executed the forward pass.
class attention_fixture {
 public:
  virtual ~attention_fixture() = default;
  virtual contender library(pass direction) = 0;
  virtual std::vector<std::string> baselines() const = 0;
  /// tuned: block size and threading are autotuned.
  virtual contender baseline(size_t which, pass direction, bool tuned) = 0;
  /// The block size and threading of the baseline created last.
  virtual std::string how() const = 0;
  /// The peak rate in operations per second, and how it is measured.
  virtual double peak_rate() = 0;
  virtual std::string peak_name() const = 0;

  virtual std::vector<float> read(part which) = 0;
  /// Overwrites the outputs of a pass with values that no contender computes.
  virtual void clear_outputs(pass direction) = 0;
};

}  // namespace tcnca::bench
