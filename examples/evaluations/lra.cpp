// The Long Range Arena, an evaluation of the TCNCA paper (arXiv 2312.05605): trains a classifier of long sequences, or
// measures its speed.
#include "lra/experiment.hpp"
#include "lra/show.hpp"
#include "lra/speed.hpp"
#include "training/wide_kernels.hpp"

namespace {

int run(lra::options const& o) {
  if (o.show > 0) return lra::show(o), 0;
  if (o.speed) return lra::report_speed(o), 0;
  lra::experiment e(o);
  auto const result = e.run();
  int const status = conclude(o, result);
  if (status != 0) return status;
  for (auto const& [name, value] : result.evaluation)
    if (name == "test_accuracy" && value < o.expect_accuracy) {
      std::fprintf(stderr, "lra: the test accuracy ended at %g, but was expected to be at least %g\n", value,
                   o.expect_accuracy);
      return 1;
    }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  tcnca::training::choose_wide_kernels(argv);
  lra::options o;
  if (auto const status = lra::parse(argc, argv, o)) return *status;
  return tcnca::training::guarded(o, [&] { return run(o); });
}
