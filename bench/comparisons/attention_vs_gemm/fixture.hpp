// Everything that runs for one problem with one element type on one machine: the library and its baselines on the same memory.
#pragma once
#include <string>
#include <vector>

#include "../../support/attention_problem.hpp"
#include "../../support/contender.hpp"

namespace tcnca::bench {

enum class part { q, k, v, grad_o, o, grad_q, grad_k, grad_v };

/// Contenders write o, or the gradients; their results lie in read(). A contender of backward has run forward when it is made.
class attention_fixture {
 public:
  virtual ~attention_fixture() = default;
  virtual contender library(pass direction) = 0;
  virtual std::vector<std::string> baselines() const = 0;
  /// tuned: cuts its work in the way that is found to be fastest.
  virtual contender baseline(size_t which, pass direction, bool tuned) = 0;
  /// How the opponent made last was built: a note.
  virtual std::string how() const = 0;
  /// Operations a second that the machine can do, and what they are.
  virtual double peak_rate() = 0;
  virtual std::string peak_name() const = 0;

  virtual std::vector<float> read(part which) = 0;
  /// Overwrites what a pass writes with something that no contender computes.
  virtual void clear_outputs(pass direction) = 0;
};

}  // namespace tcnca::bench
