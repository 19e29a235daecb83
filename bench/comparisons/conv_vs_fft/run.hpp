// Measures all contenders of a fixture.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

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
  bool note_fft = true;  ///< add a note on the FFT variant
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
  std::string const levels_name = request.backend == "cpu" ? "oneDNN" : "The stack by levels";
  for (pass const direction : {pass::forward, pass::backward}) {
    plan.begin(where + to_string(direction) + ", planning the FFT");
    row common;
    common.direction = direction, common.backend = request.backend, common.dtype = request.dtype, common.p = request.p;
    contender const given = a.fft(direction, false), generated = a.fft(direction, true), scan = a.scan(direction);
    common.bytes = useful_bytes(request.p, direction, request.element_bytes);
    common.copy_rate = a.copy_rate(static_cast<size_t>(common.bytes));
    for (size_t const s : request.stacks) {
      row r = common;
      r.shape = compared_stacks[s];
      plan.begin(r.name());
      contender const stack = a.stack(s, direction),
                      levels = plan.left() > 0
                                   ? a.levels(s, direction,
                                              std::min(request.levels_limit_seconds, std::max(0.15 * plan.left(), 0.5)))
                                   : contender{{}, {}, "the time limit had passed before some rows"};
      if (!levels.run) add_note(remarks.left_out, levels_name + " is left out: " + levels.skip_reason + ".");
      auto const times = measure_paired({stack.run, given.run, generated.run, scan.run, levels.run},
                                        {request.backend == "cpu" ? request.p.threads : 0, plan.row_seconds()});
      plan.end();
      if (!times.reliable) {
        machine.drop(r.name());
        continue;
      }
      r.conv_ms = times.ms[0], r.fft_given_ms = times.ms[1], r.fft_generated_ms = times.ms[2], r.scan_ms = times.ms[3],
      r.levels_ms = times.ms[4];
      r.fma_rate = a.fma_rate();
      r.operations = useful_operations(r.shape, request.p, direction);
      rows.push_back(r);
    }
  }
  if (request.note_fft) add_note(remarks.how, "FFT, " + where + a.fft_variant());
  return rows;
}

}  // namespace tcnca::bench
