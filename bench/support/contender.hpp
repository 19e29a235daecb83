// One implementation in a comparison: it can be timed, and its results can be read for a check.
#pragma once
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace tcnca::bench {

enum class pass { forward, backward };
inline char const* to_string(pass p) { return p == pass::forward ? "forward" : "backward"; }

/// What a contender computed: a sequence (y or grad_x) and, backward, the gradients of its parameters.
struct outcome {
  std::vector<float> sequence, parameters;
};

/// An operation bound to its memory. run() executes it once and returns the seconds it took. A contender without
/// `run` is not available, and `skip_reason` says why.
struct contender {
  std::function<double()> run;
  std::function<outcome()> result;
  std::string skip_reason;
};

inline constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

}  // namespace tcnca::bench
