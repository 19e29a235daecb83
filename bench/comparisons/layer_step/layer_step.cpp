// One training step of a layer and its feed-forward block, forward and backward, with TCNCA's convolutions and with
// MEGA's EMA as a scan and by FFT: where the time goes, and the speed-up that a mixer without cost would give.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>

#include "../../baselines/ceilings.hpp"
#include "../../baselines/openblas_core.hpp"
#include "../../support/commit.hpp"
#include "../../support/machine.hpp"
#include "../../support/paired.hpp"
#include "../../support/progress.hpp"
#include "block.hpp"
#include "options.hpp"
#include "report.hpp"

namespace tcnca::bench {
namespace {

/// Milliseconds of wall time, or of this thread's CPU time.
double now(bool processor) {
  if (!processor)
    return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return 1e3 * double(t.tv_sec) + 1e-6 * double(t.tv_nsec);
}

/// Measures steps, mixers and parts in turn, backward after forward; returns false if other programs disturbed them.
bool measure(step_block& b, step_row& r, step_options const& o) {
  std::vector<paired_call> calls;
  std::vector<double*> results;
  auto const add = [&](double& ms, std::function<void()> call) {
    calls.push_back([call = std::move(call), processor = o.processor_time] {
      double const start = now(processor);
      call();
      return 1e-3 * (now(processor) - start);
    });
    results.push_back(&ms);
  };
  auto const both = [&](step_times& t, std::function<void()> forward, std::function<void()> backward) {
    add(t.forward, std::move(forward)), add(t.backward, std::move(backward));
  };
  for (step_mixer const m : step_mixers) {
    both(
        r.step[size_t(m)], [&b, m] { b.forward(m); }, [&b, m] { b.backward(m); });
    if (m != step_mixer::nothing)
      both(
          r.mixer[size_t(m)], [&b, m] { b.mix(m); }, [&b, m] { b.mix_backward(m); });
  }
  for (step_part const q : step_parts)
    both(
        r.part[size_t(q)], [&b, q] { b.run(q); }, [&b, q] { b.run_backward(q); });
  auto const times = measure_paired(calls, {o.processor_time ? 0 : o.threads, o.min_time, 5, true});
  for (size_t i = 0; i < results.size(); i++) *results[i] = times.ms[i];
  return times.reliable;
}

int run(step_options const& o) {
  models::one_blas_thread();
  auto const problems = o.problems();
  cpu_ceilings ceilings(o.threads);
  progress line(int(problems.size()));
  machine_record machine(o.threads, built_commit());
  std::vector<step_row> rows;
  for (step_problem const& p : problems) {
    line.begin("d " + std::to_string(p.channels) + ", length " + std::to_string(p.length));
    step_block block(p);
    // Both compute the same function; the kernel and the sums accumulate some thousand roundings.
    if (double const difference = block.fft_difference(); !(difference < 1e-4)) {
      std::fprintf(
          stderr,
          "layer_step: The EMA by FFT differs from the scan by %.1e of the largest value at d %ld, length %ld.\n",
          difference, long(p.channels), long(p.length));
      return 1;
    }
    step_row r;
    r.p = p;
    bool const measured = measure(block, r, o);
    ceilings.measure_fma(0.1);
    if (measured) {
      rows.push_back(r);
    } else {
      for (bool const backward : {false, true})
        for (step_mixer const m : step_mixers)
          machine.drop(std::string(backward ? "backward, " : "forward, ") + to_string(m) + ", d " +
                       std::to_string(p.channels) + ", length " + std::to_string(p.length));
    }
    line.end();
  }
  line.clear();
  for (auto& r : rows) r.fma_rate = ceilings.fma_rate();

  step_origin const origin{openblas_description(), ceilings.fma_rate(), o.processor_time};
  machine.finish(rows.size() * 2 * step_mixers.size());
  write_summary(rows, machine, origin, o.output);
  print_table(rows, stdout);
  std::printf(
      "\nTCNCA KxD: D levels of K taps, dilations powers of K. MEGA: an EMA with 16 states per channel; FFT: each step "
      "generates and transforms its\nkernel, FFTs of at least twice the length (FFTW, measured plans), with transposes "
      "to rows and back. All other code is the same. Milliseconds:\nthe best of several calls in turn%s. *mixer*, "
      "*products* (OpenBLAS, with their biases), *attention* and *gates* are timed alone; *rest* is the\nremainder: "
      "norms, activations, sums. *over MEGA FFT*: the ratio of steps; *attainable*: that of a step whose mixer takes "
      "no "
      "time;\n*mixers alone*: that of mixers.\n"
      "%s; %s GFLOP/s of fp32 FMAs on %d thread%s; %s.\n",
      o.processor_time ? ", CPU time" : "", machine.sentence().c_str(),
      detail::cell(ceilings.fma_rate() * 1e-9, 0).c_str(), o.threads, o.threads == 1 ? "" : "s",
      origin.products.c_str());
  if (auto const warning = machine.warning(); !warning.empty()) std::printf("WARNING: %s\n", warning.c_str());
  std::printf("%.0f s. Wrote %s\n", line.elapsed(), o.output.c_str());
  return 0;
}

}  // namespace
}  // namespace tcnca::bench

int main(int argc, char** argv) {
  tcnca::bench::unrestrict_openblas(argv);
  return tcnca::bench::guarded("layer_step", [&] { return tcnca::bench::run(tcnca::bench::parse_step(argc, argv)); });
}
