// Times one contender with Google Benchmark: its loop, its counters and its filters are used, its reporter is ours.
#pragma once
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

namespace tcnca::bench {

/// Milliseconds of the best of a number of repetitions, and their median.
struct measurement {
  double best_ms = 0, median_ms = 0;
  long repetitions = 0;
};

/// Takes Google Benchmark's reports in silence and remembers whether one failed.
class quiet_reporter final : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(Context const&) override { return true; }
  void ReportRuns(std::vector<Run> const& runs) override {
    for (auto const& run : runs)
      if (run.error_occurred) error_ = run.error_message;
  }
  std::string const& error() const { return error_; }

 private:
  std::string error_;
};

/// Runs the contender, which returns its own seconds, once to warm up (and to see how long it takes), then as often as fits in
/// `budget_seconds`: at least `least` times, at most 1000. Where the first call alone fills the budget it counts as well.
inline measurement measure(std::string const& name, std::function<double()> const& contender, double budget_seconds,
                           int least) {
  double const first = contender();
  double const fits = budget_seconds / std::max(first, 1e-7);
  auto const repetitions = static_cast<benchmark::IterationCount>(std::clamp(fits, static_cast<double>(least), 1000.0));
  std::vector<double> seconds;
  seconds.reserve(static_cast<std::size_t>(repetitions) + 1);
  if (first >= budget_seconds) seconds.push_back(first);
  benchmark::ClearRegisteredBenchmarks();
  benchmark::RegisterBenchmark(name.c_str(),
                               [&](benchmark::State& state) {
                                 for (auto _ : state) {
                                   seconds.push_back(contender());
                                   state.SetIterationTime(seconds.back());
                                 }
                               })
      ->UseManualTime()
      ->Iterations(repetitions);
  quiet_reporter reporter;
  benchmark::RunSpecifiedBenchmarks(&reporter, ".*");
  if (seconds.empty()) throw std::runtime_error(name + ": " + reporter.error());
  std::sort(seconds.begin(), seconds.end());
  return {seconds.front() * 1e3, seconds[seconds.size() / 2] * 1e3, static_cast<long>(seconds.size())};
}

}  // namespace tcnca::bench
