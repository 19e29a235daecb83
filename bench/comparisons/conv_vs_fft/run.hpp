// Measures all contenders of a fixture.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#include "../../baselines/fft_pytorch.hpp"
#include "../../support/machine.hpp"
#include "../../support/paired.hpp"
#include "../../support/progress.hpp"
#include "row.hpp"

namespace tcnca::bench {

/// Divides the time limit of a run among its rows: each may use an equal part of the remaining time, but at least 0.1
/// s. Calls that take longer reduce the time of later rows.
class time_plan {
 public:
  time_plan(double limit_seconds, int rows) : limit_(limit_seconds), progress_(rows) {}

  double row_seconds() const { return std::clamp(0.6 * left() / std::max(progress_.remaining(), 1), 0.1, 1.5); }
  void begin(std::string const& what) { progress_.begin(what); }
  void end() { progress_.end(); }
  void clear() const { progress_.clear(); }
  double left() const { return std::max(limit_ - progress_.elapsed(), 0.0); }
  double elapsed() const { return progress_.elapsed(); }

  /// Rows of one fixture.
  static int rows(std::size_t stacks) { return 2 * static_cast<int>(stacks); }

 private:
  double limit_;
  progress progress_;
};

struct run_request {
  std::string backend, dtype;
  size_t element_bytes;
  problem p;
  std::vector<size_t> stacks;
  double levels_limit_seconds;
  pytorch* torch = nullptr;  ///< null: it is not compared
  bool note_fft = true;      ///< add a note on the FFT variant
};

/// Contenders that were left out and the reasons; and how things were done.
struct run_notes {
  notes left_out, how;
};

/// The contenders of a row are measured in turn. Rows that could not be measured are recorded in `machine` and dropped.
inline std::vector<row> measure_fixture(conv_fixture& a, run_request const& request, time_plan& plan,
                                        run_notes& remarks, machine_record& machine) {
  std::vector<row> rows;
  std::string const where =
      request.backend + ", " + request.dtype + ", length " + std::to_string(request.p.length) + ": ";
  bool const on_cpu = request.backend == "cpu";
  int const threads = on_cpu ? request.p.threads : 0;
  std::string const levels_name = on_cpu ? "oneDNN" : "The stack by levels";
  auto* const torch = request.torch;
  if (torch != nullptr) torch->load(request.p, a.x(), a.grad_y(), a.kernel());
  contender const none{{}, {}, "the time limit had passed before some rows"};
  auto const required = [&](std::string const& name, contender const& c) {
    if (!c.run) add_note(remarks.left_out, name + " is left out: " + c.skip_reason + ".");
  };
  for (pass const direction : {pass::forward, pass::backward}) {
    plan.begin(where + to_string(direction) + ", planning the FFT");
    row common;
    common.direction = direction, common.backend = request.backend, common.dtype = request.dtype, common.p = request.p;
    contender const given = a.fft(direction, false), generated = a.fft(direction, true), scan = a.scan(direction);
    double const bytes = useful_bytes(request.p, direction, request.element_bytes);
    common.limit.bytes = common.one_thread_limit.bytes = bytes;
    common.limit.copy_rate = a.copy_rate(request.p.threads, static_cast<size_t>(bytes));
    if (threads > 1) common.one_thread_limit.copy_rate = a.copy_rate(1, static_cast<size_t>(bytes));
    contender const torch_fft = torch != nullptr ? torch->fft(direction, request.levels_limit_seconds) : none;
    if (torch != nullptr) required("torch.fft", torch_fft);
    for (size_t const s : request.stacks) {
      row r = common;
      r.shape = compared_stacks[s];
      plan.begin(r.name());
      double const limit = std::min(request.levels_limit_seconds, std::max(0.15 * plan.left(), 0.5));
      contender const stack = a.stack(s, direction, request.p.threads),
                      one_thread = threads > 1 ? a.stack(s, direction, 1) : contender{},
                      levels = plan.left() > 0 ? a.levels(s, direction, limit) : none,
                      torch_conv1d = torch == nullptr || plan.left() <= 0
                                         ? none
                                         : torch->conv1d(r.shape, a.weight(s), direction, limit);
      required(levels_name, levels);
      if (torch != nullptr) required("PyTorch's conv1d", torch_conv1d);
      auto const times = measure_paired({stack.run,
                                         {one_thread.run, 1},
                                         given.run,
                                         generated.run,
                                         scan.run,
                                         levels.run,
                                         {torch_fft.run, 0},
                                         {torch_conv1d.run, 0}},
                                        {threads, plan.row_seconds()});
      plan.end();
      if (!times.reliable) {
        machine.drop(r.name());
        continue;
      }
      auto ms = times.ms.begin();
      for (double* const to : {&r.conv_ms, &r.one_thread_ms, &r.fft_given_ms, &r.fft_generated_ms, &r.scan_ms,
                               &r.levels_ms, &r.torch_fft_ms, &r.torch_conv1d_ms})
        *to = *ms++;
      r.limit.operations = r.one_thread_limit.operations = useful_operations(r.shape, request.p, direction);
      r.limit.fma_rate = a.fma_rate(request.p.threads);
      if (threads > 1) r.one_thread_limit.fma_rate = a.fma_rate(1);
      rows.push_back(r);
    }
  }
  if (request.note_fft) add_note(remarks.how, "FFT, " + where + a.fft_variant());
  return rows;
}

}  // namespace tcnca::bench
