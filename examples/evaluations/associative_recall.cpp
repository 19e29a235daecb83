// Associative recall, an evaluation of the TCNCA paper (arXiv 2312.05605): trains a small model and tests it on unseen
// sequences.
#include "recall/experiment.hpp"
#include "recall/options.hpp"
#include "recall/sweep.hpp"
#include "training/wide_kernels.hpp"

namespace {

int run(recall::options& o) {
  if (o.sweep) return recall::sweep(o).run();
  recall::experiment e(o);
  auto result = e.run();
  if (result.status() != 0) return conclude(o, result);
  double const tested = result.evaluation.front().second;
  if (o.train > 0)
    result.evaluation.emplace_back("train_accuracy", e.accuracy(std::min(o.train, o.test), o.config.seed));
  int const status = conclude(o, result);
  if (status == 0 && tested < o.expect_accuracy) {
    std::fprintf(stderr, "%s: the test accuracy ended at %g, but was expected to be at least %g\n", o.program.c_str(),
                 tested, o.expect_accuracy);
    return 1;
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  tcnca::training::choose_wide_kernels(argv);
  recall::options o;
  if (auto const status = recall::parse(argc, argv, o)) return *status;
  return tcnca::training::guarded(o, [&] { return run(o); });
}
