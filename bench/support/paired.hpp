// Times the contenders of a row in one interleaved measurement, and detects disturbance by other programs.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "process_clock.hpp"

namespace tcnca::bench {

/// How a row is measured.
struct paired_plan {
  int threads = 1;  ///< of a contender that names none; 0: CPU time is not evaluated, as for calls to a GPU
  double row_seconds =
      0.5;         ///< of all contenders together; up to twice that for long calls, three times on a busy machine
  int rounds = 5;  ///< at least; two if the time is over
  bool one_call = false;  ///< one call per contender and round, so that each call follows the previous contender's
};

/// A contender: the call returns its seconds, or infinity if it was disturbed.
struct paired_call {
  std::function<double()> run;        ///< empty: there is no such contender
  int threads = threads_of_the_plan;  ///< 0: CPU time is not evaluated

  static constexpr int threads_of_the_plan = -1;
  paired_call() = default;
  template <class Call>
  requires std::is_constructible_v<std::function<double()>, Call> paired_call(Call call,
                                                                              int of_call = threads_of_the_plan)
      : run(std::move(call)), threads(of_call) {}
};

/// The result of a measurement.
struct paired_times {
  std::vector<double> ms;  ///< best call of each contender in the same rounds; NaN without a contender
  int rounds = 0;
  double others = 0;     ///< share of the machine's CPU time that other programs used; NaN: unknown
  bool reliable = true;  ///< false: all rounds of a contender but one were disturbed, or its two best differ
};

namespace detail {
/// A call counts if its threads ran for at least this share of the wall time.
inline constexpr double least_running = 0.8;
/// Largest ratio between the two best rounds of a contender.
inline constexpr double largest_spread = 1.25;
/// If other programs use more than this share, a thread that did not run is assumed to have waited for them, not for
/// its own siblings.
inline constexpr double busy_share = 0.05;

inline constexpr double nothing = std::numeric_limits<double>::infinity();

struct contender_times {
  bool once = false;                        ///< one call fills the time of the row
  double best = nothing, second = nothing;  ///< seconds, over its rounds
  void count(double seconds) {
    if (seconds < best) second = best, best = seconds;
    else second = std::min(second, seconds);
  }
  bool enough() const { return best < nothing && (once || second <= largest_spread * best); }
};

inline bool ran(clock_reading const& from, clock_reading const& to, int threads) {
  return threads == 0 || to.cpu - from.cpu >= least_running * threads * (to.wall - from.wall);
}
}  // namespace detail

/// Calls the contenders in turn; each returns the seconds of its call. In every round a contender gets the same share
/// of the time, at least one call, so that a change of the machine's speed affects all of them, and ratios are of the
/// same rounds. A call is disturbed if its threads were not running for part of it and another program wanted the
/// processor: a thread was preempted, or other programs are busy. Disturbed calls are not counted. A contender whose
/// first call fills the time of the row is called once, or again until one call counts.
template <class Clock>
paired_times measure_paired(std::vector<paired_call> const& contenders, paired_plan plan, Clock& clock) {
  using detail::contender_times, detail::nothing;
  std::vector<contender_times> all(contenders.size());
  auto const present = static_cast<double>(std::max<std::ptrdiff_t>(
      1, std::count_if(contenders.begin(), contenders.end(), [](auto const& c) { return bool(c.run); })));
  double const slice = plan.row_seconds / present / plan.rounds, others_from = clock.others(),
               start = clock.read().wall;
  double const processors = clock.processors();
  auto const others = [&] {
    return (clock.others() - others_from) / (std::max(clock.read().wall - start, 1e-9) * processors);
  };

  double busy = 0;
  /// Seconds of the call, infinity if it was disturbed.
  auto const call = [&](std::size_t i) {
    clock_reading const from = clock.read();
    double const seconds = contenders[i].run();
    clock_reading const to = clock.read();
    bool const waited_for_others = to.switches > from.switches || busy > detail::busy_share;
    int const asked = contenders[i].threads == paired_call::threads_of_the_plan ? plan.threads : contenders[i].threads;
    bool const all_ran = detail::ran(from, to, std::min(asked, usable_processors()));
    return all_ran || !waited_for_others ? seconds : nothing;
  };
  auto const finished = [&] {
    return std::all_of(all.begin(), all.end(), [](contender_times const& s) { return s.enough(); });
  };
  for (std::size_t i = 0; i < all.size(); i++) {
    if (!contenders[i].run) {
      all[i].once = true, all[i].best = 0;
      continue;
    }
    double const before = clock.read().wall, counts = call(i);
    all[i].once = !plan.one_call && clock.read().wall - before >= plan.row_seconds;
    if (all[i].once) all[i].count(counts);  // otherwise the first call is the warm-up
  }
  clock.refresh();
  paired_times result;
  double const begun = clock.read().wall;
  auto const goes_on = [&] {
    double const time = clock.read().wall - begun;
    if (result.rounds < 2 || time < plan.row_seconds * (1 - 1e-9)) return true;
    if (result.rounds < plan.rounds && time < 2 * plan.row_seconds) return true;
    return !finished() && (result.rounds < 4 || time < 3 * plan.row_seconds);
  };
  for (; goes_on(); result.rounds++) {
    busy = others();
    bool called = false;
    for (std::size_t i = 0; i < all.size(); i++) {
      if (all[i].once && all[i].enough()) continue;
      double best = nothing;
      double const end = clock.read().wall + slice;
      int calls = 0;
      do best = std::min(best, call(i));
      while (!plan.one_call && ++calls < 1000 && clock.read().wall < end);
      all[i].count(best);
      called = true;
    }
    if (!called) break;
  }
  result.others = others();
  result.reliable = finished();
  for (std::size_t i = 0; i < all.size(); i++)
    result.ms.push_back(contenders[i].run && all[i].best < nothing ? all[i].best * 1e3
                                                                   : std::numeric_limits<double>::quiet_NaN());
  return result;
}

inline paired_times measure_paired(std::vector<paired_call> const& contenders, paired_plan const& plan) {
  process_clock clock;
  return measure_paired(contenders, plan, clock);
}

/// Seconds of a call; infinity if it was disturbed.
template <class Call>
double undisturbed_seconds(process_clock const& clock, int threads, Call const& call) {
  clock_reading const from = clock.read();
  call();
  clock_reading const to = clock.read();
  return to.switches == from.switches || detail::ran(from, to, std::min(threads, usable_processors()))
             ? to.wall - from.wall
             : detail::nothing;
}

/// Seconds of the first undisturbed call, or of the fourth call; for autotuning.
template <class Call>
double steady_seconds(int threads, Call const& call) {
  process_clock const clock;
  for (int i = 0; i < 3; i++)
    if (double const s = undisturbed_seconds(clock, threads, call); s < detail::nothing) return s;
  double const start = clock.read().wall;
  call();
  return clock.read().wall - start;
}

}  // namespace tcnca::bench
