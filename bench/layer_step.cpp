// The benchmark of a step: one layer and its feed-forward block, forward and backward, with TCNCA's convolutions and with MEGA's average as a scan and by
// FFT; where the time goes, and what a mixer that costs nothing would gain.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>

#include "baselines/ceilings.hpp"
#include "baselines/openblas_core.hpp"
#include "step/block.hpp"
#include "step/options.hpp"
#include "step/report.hpp"
#include "support/progress.hpp"

namespace tcnca::bench {
namespace {

double time_of(std::function<void()> const& f) {
  auto const start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

/// All turn about, so that a machine that slows down does so for each; the best counts.
void measure(step_block& b, step_row& r, double min_time) {
  auto const best = [](step_times& t, std::function<void()> const& forward, std::function<void()> const& backward) {
    t.forward = std::min(t.forward, time_of(forward)), t.backward = std::min(t.backward, time_of(backward));
  };
  constexpr int least = 5;
  auto const start = std::chrono::steady_clock::now();
  for (int round = 0; round < least || std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < min_time; round++) {
    for (step_mixer const m : step_mixers) {
      best(r.step[size(m)], [&] { b.forward(m); }, [&] { b.backward(m); });
      if (m != step_mixer::nothing) best(r.mixer[size(m)], [&] { b.mix(m); }, [&] { b.mix_backward(m); });
    }
    for (step_part const q : step_parts) best(r.part[size(q)], [&] { b.run(q); }, [&] { b.run_backward(q); });
  }
}

int run(step_options const& o) {
  models::one_blas_thread();
  auto const problems = o.problems();
  cpu_ceilings ceilings(o.threads);
  progress line(int(problems.size()));
  std::vector<step_row> rows;
  for (step_problem const& p : problems) {
    line.begin("d " + std::to_string(p.channels) + ", length " + std::to_string(p.length));
    step_block block(p);
    // Both compute the same; their kernel and its sums pass some thousand roundings.
    if (double const apart = block.distance(); !(apart < 1e-4)) {
      std::fprintf(stderr, "layer_step: the average by FFT is off by %.1e of the largest number at d %ld, length %ld\n", apart, long(p.channels), long(p.length));
      return 1;
    }
    step_row r;
    r.p = p;
    measure(block, r, o.min_time);
    ceilings.measure_fma(0.1);
    rows.push_back(r);
    line.end();
  }
  line.clear();
  for (auto& r : rows) r.fma_rate = ceilings.fma_rate();

  auto const origin = step_origin::here(TCNCA_BENCH_COMMIT, openblas_description());
  std::filesystem::path const file(o.output);
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path());
  write_summary(rows, origin, o.output);
  print_table(rows, stdout);
  std::printf(
      "\nTCNCA KxD: D levels of K taps, dilations powers of K. MEGA: an average of 16 states a channel; FFT: its kernel is generated and transformed in each\n"
      "step, FFTs of at least twice the length (FFTW, measured plans), activations turned to rows and back. All else is the same code. Milliseconds are\n"
      "the best of several steps. *mixer*, *products* (OpenBLAS, with their biases), *attention* and *gates* are timed alone; *rest* is what remains: norms,\n"
      "activations, sums. *over MEGA FFT*: the ratio of steps; *attainable*: that of a step whose mixer costs nothing; *mixers alone*: that of mixers.\n"
      "%s, %s, commit %s, %s; %.0f GFLOP/s of fp32 multiply-adds on %d thread%s; %s.\n",
      origin.machine.c_str(), origin.compiler.c_str(), origin.commit.c_str(), origin.date.c_str(), ceilings.fma_rate() * 1e-9, o.threads,
      o.threads == 1 ? "" : "s", origin.products.c_str());
  if (origin.load > o.threads + 0.5)
    std::printf("WARNING: other programs were using the processor (load %.1f): these times are too long, and not alike.\n", origin.load);
  std::printf("%.0f s. Wrote %s\n", line.elapsed(), o.output.c_str());
  return 0;
}

}  // namespace
}  // namespace tcnca::bench

int main(int argc, char** argv) try {
  tcnca::bench::free_openblas(argv);
  return tcnca::bench::run(tcnca::bench::parse_step(argc, argv));
} catch (CLI::ParseError const& e) {
  return e.get_exit_code() == 0 ? 0 : 2;
} catch (std::exception const& e) {
  std::fprintf(stderr, "layer_step: %s\n", e.what());
  return 1;
}
