// Chunked attention against the same computation composed of a library's matrix products and a pass over the scores:
// forward and backward, softmax and laplace, causal and not. The peak rate is measured in the same run.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "../../baselines/openblas_core.hpp"
#include "../../support/commit.hpp"
#include "../../support/machine.hpp"
#include "../../support/paired.hpp"
#include "../../support/progress.hpp"
#include "check.hpp"
#include "fixture_cpu.hpp"
#include "fixture_cuda.hpp"
#include "options.hpp"
#include "report.hpp"

namespace tcnca::bench {
namespace {

/// A problem with its backend and element type.
struct attention_case {
  std::string backend, dtype;
  attention_problem p;
};

std::vector<attention_case> cases(attention_options const& o) {
  std::vector<attention_case> all;
  for (auto const& backend : o.backends)
    for (auto const& dtype : o.dtypes_on(backend))
      for (auto const& function : o.functions)
        for (auto const& mask : o.masks)
          for (index_t const z : o.key_dims)
            for (index_t const h : o.value_dims)
              for (index_t const chunk : o.chunks) {
                auto p = o.problem_on(backend, chunk, z, h);
                p.function = function == "softmax" ? score_function::softmax : score_function::laplace;
                p.causal = mask == "causal";
                all.push_back({backend, dtype, p});
              }
  return all;
}

std::string name_of(attention_case const& c, pass direction) {
  return attention_row{direction, c.backend, c.dtype, {}, c.p, 0, 0, {}}.block() + ", C " + std::to_string(c.p.chunk) +
         ", z " + std::to_string(c.p.key_dim) + ", h " + std::to_string(c.p.value_dim);
}

/// Creates fixtures, and owns the CPU's ceilings, which all fixtures share.
class attention_factory {
 public:
  explicit attention_factory(int threads) : threads_(threads) {}
  std::unique_ptr<attention_fixture> make(attention_case const& c) {
    if (c.backend == "cuda") return make_cuda_attention_fixture(c.dtype, c.p);
    if (!ceilings_) ceilings_ = std::make_shared<cpu_ceilings>(threads_);
    ceilings_->measure_fma(0.1);
    if (c.dtype == "fp32") return std::make_unique<cpu_attention_fixture<float>>(c.p, ceilings_);
    return std::make_unique<cpu_attention_fixture<bf16>>(c.p, ceilings_);
  }
  std::shared_ptr<cpu_ceilings> const& ceilings() const { return ceilings_; }

 private:
  int threads_;
  std::shared_ptr<cpu_ceilings> ceilings_;
};

/// Compares all contenders with the fp64 reference; prints failures, or a line per comparison. Returns the failures.
int check_all(attention_options const& o, attention_factory& make, std::vector<index_t> const& lengths, bool print) {
  int failed = 0, compared = 0;
  attention_options small = o;
  small.batch = 2, small.heads = 2;
  if (!print) small.key_dims = {32}, small.value_dims = {48}, small.chunks = {64};
  for (index_t const length : lengths) {
    small.length = length;
    for (auto const& c : cases(small)) {
      double const bound = c.dtype == "fp32" ? 2e-5 : 2e-2;  // relative to the largest value
      for (auto const& r : check(*make.make(c), c.p)) {
        bool const bad = !(r.error <= bound);
        failed += bad, compared += r.skip_reason.empty();
        if (!print && !bad) continue;
        std::string const what = r.skip_reason.empty() ? (bad ? "WRONG" : "ok") : "not compared: " + r.skip_reason;
        std::printf("%s %s %-7s %-6s length %5lld chunk %5lld key %3lld value %4lld  %-18s error %8.1e  %s\n",
                    c.backend.c_str(), c.dtype.c_str(), to_string(c.p.function), c.p.causal ? "causal" : "full",
                    static_cast<long long>(length), static_cast<long long>(c.p.chunk),
                    static_cast<long long>(c.p.key_dim), static_cast<long long>(c.p.value_dim), r.contender.c_str(),
                    r.error, what.c_str());
      }
    }
  }
  std::string sizes;
  for (index_t const l : lengths) sizes += (sizes.empty() ? "" : ", ") + std::to_string(l);
  std::printf(
      "check: %d results compared with the fp64 reference at length %s (batch 2, 2 heads; the first and the last chunk "
      "of "
      "the first and the last sequence), %d wrong\n",
      compared, sizes.c_str(), failed);
  return failed;
}

/// Measures all contenders of a row in turn; returns false if other programs disturbed them.
bool measure_row(attention_row& r, attention_fixture& a, double min_time) {
  std::vector<paired_call> contenders{a.library(r.direction).run};
  for (auto const& who : a.baselines()) {
    contender const c = a.baseline(r.baselines.size(), r.direction, true);
    contenders.push_back(c.run);
    r.baselines.push_back({who, c.run ? a.how() : c.skip_reason, not_measured});
  }
  auto const times = measure_paired(
      contenders, {r.backend == "cpu" ? r.p.threads : 0, min_time * static_cast<double>(contenders.size())});
  r.ms = times.ms[0];
  for (size_t i = 0; i < r.baselines.size(); i++) r.baselines[i].ms = times.ms[i + 1];
  r.peak_rate = a.peak_rate(), r.peak_name = a.peak_name();
  return times.reliable;
}

int run(attention_options const& o) {
  attention_factory make(o.threads);
  if (o.check) return check_all(o, make, {1, 100, 300}, true) == 0 ? 0 : 1;
  if (check_all(o, make, {150}, false) != 0) return 1;

  struct step {
    attention_case of;
    pass direction;
  };
  std::vector<step> steps;
  for (auto const& c : cases(o))
    for (auto const& d : o.directions) {
      pass const direction = d == "forward" ? pass::forward : pass::backward;
      if (name_of(c, direction).find(o.filter) != std::string::npos) steps.push_back({c, direction});
    }
  if (steps.empty()) throw usage_error("--filter: no row has " + o.filter + " in its name.");
  machine_record machine(o.threads, built_commit());
  machine.gpu(std::find(o.backends.begin(), o.backends.end(), "cuda") == o.backends.end() ? ""
                                                                                          : attention_device_name());
  progress line(static_cast<int>(steps.size()));
  std::vector<attention_row> rows;
  size_t skipped = 0;
  for (auto const& [c, direction] : steps) {
    std::string const name = name_of(c, direction);
    if (o.time_limit > 0 && line.elapsed() > o.time_limit) {
      skipped++;
      continue;
    }
    line.begin(name);
    attention_row r{direction, c.backend, c.dtype, {}, c.p, not_measured, 0, {}};
    if (measure_row(r, *make.make(c), o.min_time)) rows.push_back(r);
    else machine.drop(name);
    line.end();
  }
  line.clear();
  if (make.ceilings())  // measured throughout the run; the best value is the peak
    for (auto& r : rows)
      if (r.backend == "cpu") r.peak_rate = make.ceilings()->fma_rate();
  std::stable_sort(rows.begin(), rows.end(), [](attention_row const& a, attention_row const& b) {
    auto const rank = [](attention_row const& r) {
      return std::tuple(r.backend, r.dtype != "fp32", r.p.function, r.p.causal, r.direction);
    };
    return rank(a) < rank(b);
  });

  machine.finish(rows.size());
  write_summary(rows, machine, o.output);
  print_table(rows, stdout);
  std::printf(
      "\ntcnca: tcnca::chunked_attention. Baselines: S = Q K' by the library, one vectorized pass over the scores, "
      "O = P V by the library; backward five\nproducts, or four with saved scores; block size and threading are "
      "autotuned. OpenBLAS converts bf16 to fp32; oneDNN multiplies bf16 where\nthe CPU can, and its peak is then "
      "higher "
      "than the table's. Milliseconds: the best of several calls; the contenders of a row were called in turn.\n"
      "Operations: those of the products for valid pairs of a query and a key, forward 2 (z + h) per pair, backward "
      "2 (3 z + 2 h).\n");
  if (make.ceilings())
    std::printf("cpu, %d threads: %s GFLOP/s of fp32 FMAs, the peak in the table. %s\n", o.threads,
                detail::cell(make.ceilings()->fma_rate() * 1e-9, 0).c_str(), openblas_description().c_str());
  std::set<std::string> missing;
  for (auto const& r : rows)
    for (auto const& who : r.baselines)
      if (std::isnan(who.ms)) missing.insert(who.name + " is left out: " + who.how + ".");
  for (auto const& sentence : missing) std::printf("%s\n", sentence.c_str());
  if (skipped > 0) std::printf("%zu rows were skipped: the time limit had passed.\n", skipped);
  std::printf("%s\n", machine.sentence().c_str());
  if (auto const warning = machine.warning(); !warning.empty()) std::printf("WARNING: %s\n", warning.c_str());
  std::printf("%.0f s. Wrote %s\n", line.elapsed(), o.output.c_str());
  return 0;
}

}  // namespace
}  // namespace tcnca::bench

int main(int argc, char** argv) {
  tcnca::bench::unrestrict_openblas(argv);
  return tcnca::bench::guarded("attention_vs_gemm", [&] {
    return tcnca::bench::run(tcnca::bench::parse_attention(argc, argv, tcnca::bench::attention_backends()));
  });
}
