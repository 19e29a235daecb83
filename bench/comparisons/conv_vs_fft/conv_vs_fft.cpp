// Dilated convolution stacks against MEGA's EMA as an FFT convolution, forward and backward, at lengths from 1k to
// 131k. The FMA peak and the copy bandwidth are measured in the same run.
#include <fftw3.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "../../support/commit.hpp"
#include "../../support/machine.hpp"
#include "check.hpp"
#include "figure.hpp"
#include "fixture_cpu.hpp"
#include "fixture_cuda.hpp"
#include "options.hpp"
#include "report.hpp"
#include "run.hpp"
#include "summary.hpp"
#include "table.hpp"

namespace {

using namespace tcnca::bench;
using tcnca::bf16;
using tcnca::index_t;
using tcnca::size_t;

/// Creates fixtures, and owns what lives as long as the run.
class factory {
 public:
  explicit factory(options const& o) : options_(o), text_(o.input) {}

  problem at(std::string const& backend, index_t length) const {
    return {options_.batch_on(backend), options_.channels_on(backend), length, options_.threads};
  }
  text const& input() const { return text_; }
  std::unique_ptr<conv_fixture> make(std::string const& backend, std::string const& dtype, problem const& p) {
    if (backend == "cuda") return make_cuda_conv_fixture(dtype, p, text_);
    if (!ceilings_) ceilings_ = std::make_shared<ceilings_by_threads>();
    if (dtype == "fp32") return std::make_unique<cpu_conv_fixture<float>>(p, text_, ceilings_);
    return std::make_unique<cpu_conv_fixture<bf16>>(p, text_, ceilings_);
  }
  std::shared_ptr<ceilings_by_threads> const& ceilings() const { return ceilings_; }
  /// PyTorch on a backend; null in bf16, which is not compared.
  pytorch* torch(std::string const& backend, std::string const& dtype) {
    if (dtype != "fp32") return nullptr;
    auto& process = torch_[backend];
    if (!process) process = std::make_unique<pytorch>(options_.python, TCNCA_BENCH_PYTORCH, backend, options_.threads);
    return process.get();
  }
  /// ", PyTorch 2.4 on cpu" for each backend where it was started.
  std::string torch_versions() const {
    std::string all;
    for (auto const& [backend, process] : torch_)
      if (process->reason().empty()) all += ", " + process->version() + " on " + backend;
    return all;
  }

 private:
  options options_;
  text text_;
  std::shared_ptr<ceilings_by_threads> ceilings_;
  std::map<std::string, std::unique_ptr<pytorch>> torch_;
};

size_t element_bytes(std::string const& dtype) { return dtype == "fp32" ? 4 : 2; }

/// Compares all contenders with the fp64 reference; prints failures, or a line per comparison. Returns the failures.
int check_all(options const& o, factory& make, std::vector<index_t> const& lengths, bool print) {
  constexpr index_t batch = 2, channels = 24;
  int failed = 0, compared = 0;
  for (auto const& backend : o.backends)
    for (auto const& dtype : o.dtypes)
      for (index_t const length : lengths) {
        problem p = make.at(backend, length);
        p.batch = batch, p.channels = channels;
        double const bound = dtype == "fp32" ? 2e-5 : 2e-2;  // relative to the largest value
        for (auto const& r : check(*make.make(backend, dtype, p), make.torch(backend, dtype), p, o.chosen_stacks())) {
          bool const bad = !(r.error <= bound);
          failed += bad, compared += r.skip_reason.empty();
          if (!print && !bad) continue;
          std::string const what = r.skip_reason.empty() ? (bad ? "WRONG" : "ok") : "not compared: " + r.skip_reason;
          std::printf("%s %s length %5lld  %-32s error %8.1e  %s\n", backend.c_str(), dtype.c_str(),
                      static_cast<long long>(length), r.contender.c_str(), r.error, what.c_str());
        }
      }
  std::string sizes, checked;
  for (index_t const l : lengths) sizes += (sizes.empty() ? "" : ", ") + std::to_string(l);
  for (index_t const c : checked_channels(channels)) checked += (checked.empty() ? "" : ", ") + std::to_string(c);
  std::printf(
      "check: %d results compared with the fp64 reference at length %s (batch %d; channels %s of %d), %d wrong\n",
      compared, sizes.c_str(), int(batch), checked.c_str(), int(channels), failed);
  return failed;
}

int run(options const& o) {
  if (o.huge_pages) buffer_pages() = page_choice::huge;
  factory make(o);
  if (o.check) return check_all(o, make, {1, 2, 100, 257, 1000}, true) == 0 ? 0 : 1;
  if (check_all(o, make, {300}, false) != 0) return 1;

  auto const stacks = o.chosen_stacks();
  auto const fixtures = o.backends.size() * o.dtypes.size() * o.lengths.size();
  machine_record machine(o.threads, built_commit());
  machine.gpu(std::find(o.backends.begin(), o.backends.end(), "cuda") == o.backends.end() ? "" : cuda_device_name());
  time_plan plan(o.time_limit, static_cast<int>(fixtures) * time_plan::rows(stacks.size()));
  std::vector<row> rows;
  run_notes remarks;
  for (auto const& backend : o.backends)
    for (auto const& dtype : o.dtypes)
      for (index_t const length : o.lengths) {
        problem const p = make.at(backend, length);
        plan.begin(backend + ", " + dtype + ", length " + std::to_string(length) + ": planning the FFT");
        if (make.ceilings()) make.ceilings()->measure_fma(0.1);
        auto const a = make.make(backend, dtype, p);
        auto const measured = measure_fixture(*a,
                                              {backend, dtype, element_bytes(dtype), p, stacks, o.levels_limit,
                                               make.torch(backend, dtype), dtype == o.dtypes.front()},
                                              plan, remarks, machine);
        rows.insert(rows.end(), measured.begin(), measured.end());
      }
  plan.clear();
  if (make.ceilings())  // measured throughout the run; the best value is the peak
    for (auto& r : rows)
      if (r.backend == "cpu")
        for (auto [to, threads] : {std::pair{&r.limit, r.p.threads}, std::pair{&r.one_thread_limit, 1}})
          if (to->fma_rate == to->fma_rate) to->fma_rate = make.ceilings()->of(threads).fma_rate();
  std::stable_sort(rows.begin(), rows.end(), [](row const& a, row const& b) {
    return std::tie(a.backend, b.dtype, a.direction) <
           std::tie(b.backend, a.dtype, b.direction);  // cpu before cuda, fp32 before bf16
  });

  std::filesystem::path const file(o.output);
  machine.finish(rows.size());
  std::string opponents = fftwf_version;
#if defined(TCNCA_BENCH_DNNL)
  auto const* const dnnl = dnnl_version();
  opponents += ", oneDNN " + std::to_string(dnnl->major) + "." + std::to_string(dnnl->minor);
#endif
  opponents += make.torch_versions();
  write_summary(rows, machine, o.huge_pages, opponents, o.output);
  auto const picture = (file.parent_path() / "speedup.svg").string();
  write_figure(rows, picture);
  std::string const warning = machine.warning();
  auto const page = (file.parent_path() / file.stem()).string() + ".md";
  write_report(rows, warning, remarks.left_out, page);

  print_table(rows, stdout);
  std::printf(
      "\nstack: tcnca::conv_stack, plain convolutions. FFT: y = irfft(rfft(x, 2L) rfft(kappa, 2L)) in fp32 by FFTW or "
      "cuFFT; the kernel is given, or\ngenerated from the EMA's parameters (16 states). Forward includes the kernel's "
      "transform; backward uses the saved spectra of x and kappa.\nMilliseconds: the best of several calls; the "
      "contenders of a row were called in turn. %% of limit: of the time that the FMA peak or the copy\nbandwidth "
      "allows. An FMA counts as 2 operations; forward counts 2 per tap inside the sequence, backward 6. Forward "
      "moves\nx and y, backward x, grad_y and grad_x.\n");
  for (auto const& sentence : equal_field_sentences(rows)) std::printf("%s\n", sentence.c_str());
  std::printf("input: %s\n", make.input().description().c_str());
  if (!warning.empty()) std::printf("WARNING: %s\n", warning.c_str());
  if (make.ceilings())
    std::printf("cpu, %d threads: %s GFLOP/s fp32, copy of a large array %s GB/s; %s\n", o.threads,
                detail::cell(make.ceilings()->of(o.threads).fma_rate() * 1e-9, 0).c_str(),
                detail::cell(make.ceilings()->of(o.threads).copy_rate(size_t{1} << 30) * 1e-9, 0).c_str(),
                opponents.c_str());
  for (auto const& all : {remarks.left_out, remarks.how})
    for (auto const& n : all) std::printf("%s\n", n.c_str());
  std::printf("%s\n", machine.sentence().c_str());
  std::printf("%.0f s. Wrote %s, %s and %s\n", plan.elapsed(), o.output.c_str(), page.c_str(), picture.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return guarded("conv_vs_fft", [&] { return run(parse(argc, argv, available_backends())); });
}
