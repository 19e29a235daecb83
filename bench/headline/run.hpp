// Measures all contenders in one arena and makes rows of them.
#pragma once
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "../support/harness.hpp"
#include "../support/progress.hpp"
#include "row.hpp"

namespace tcnca::bench {

/// How much time a run may take, and how it is shared out: each measurement may use an equal part of what is left, long ones that need
/// more take it from the rest; a contender is always called twice at least, and short ones for 20 ms.
class time_plan {
 public:
  time_plan(double limit_seconds, int steps) : limit_(limit_seconds), progress_(steps) {}
  /// Times a contender, or says in the notes why not.
  double measure(std::string const& what, contender const& c, notes& remarks, std::string const& missing) {
    double best = not_measured;
    if (c.run) {
      double const left = std::max(limit_ - progress_.elapsed(), 0.0);
      best =
          bench::measure(what, c.run, std::clamp(0.6 * left / std::max(progress_.remaining(), 1), 0.02, 0.3), 1).best_ms;
    } else {
      add_note(remarks, missing + c.missing);
    }
    progress_.end();
    return best;
  }
  void begin(std::string const& what) { progress_.begin(what); }
  void clear() const { progress_.clear(); }
  double left() const { return limit_ - progress_.elapsed(); }
  double elapsed() const { return progress_.elapsed(); }

  /// Measurements of one arena.
  static int steps(std::size_t stacks) { return 6 + 4 * static_cast<int>(stacks); }

 private:
  double limit_;
  progress progress_;
};

struct run_request {
  std::string backend, dtype;
  size element_bytes;
  problem p;
  std::vector<size> stacks;
  double levels_limit_seconds;
  bool note_fft = true;  ///< say how the FFT was done
};

inline std::vector<row> measure_arena(arena& a, run_request const& request, time_plan& plan, notes& remarks) {
  std::vector<row> rows;
  std::string const where =
      request.backend + ", " + request.dtype + ", length " + std::to_string(request.p.length) + ": ";
  for (pass const direction : {pass::forward, pass::backward}) {
    auto const timed = [&](std::string const& who, auto const& make) {
      std::string const what = where + to_string(direction) + ", " + who;
      plan.begin(what);
      contender const c = make();
      return plan.measure(what, c, remarks, "no " + who + ": ");
    };
    row common;
    common.direction = direction, common.backend = request.backend, common.dtype = request.dtype, common.p = request.p;
    common.fft_given_ms = timed("FFT, kernel given", [&] { return a.fft(direction, false); });
    common.fft_generated_ms = timed("FFT, kernel generated", [&] { return a.fft(direction, true); });
    common.scan_ms = timed("scan", [&] { return a.scan(direction); });
    double const bytes = useful_bytes(request.p, direction, request.element_bytes);
    common.copy_rate = a.copy_rate(static_cast<size>(bytes));
    common.bytes = bytes;
    for (size const s : request.stacks) {
      row r = common;
      r.shape = headline_stacks[s];
      std::string const name = stack_name(r.shape);
      r.conv_ms = timed("stack " + name, [&] { return a.stack(s, direction); });
      plan.begin(where + to_string(direction) + ", " + name + " by levels");
      contender const levels =
          a.levels(s, direction, std::min(request.levels_limit_seconds, std::max(0.15 * plan.left(), 0.5)));
      r.levels_ms = plan.measure(where + name + " by levels", levels, remarks, "no stack by levels: ");
      r.fma_rate = a.fma_rate();
      r.operations = useful_operations(r.shape, request.p, direction);
      rows.push_back(r);
    }
  }
  if (request.note_fft) add_note(remarks, "FFT, " + where + a.fft_variant());
  return rows;
}

}  // namespace tcnca::bench
