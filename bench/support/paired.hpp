// Times the contenders of one row in one interleaved measurement, and says where the machine was too busy for it.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <vector>

#include "process_clock.hpp"

namespace tcnca::bench {

/// How a row is measured.
struct paired_plan {
  int threads = 1;  ///< that each contender keeps busy; 0: CPU time says nothing about it, as of a call to a GPU
  double row_seconds =
      0.5;  ///< for all contenders together; twice that where calls are long, and three times where the machine is busy
  int rounds = 5;         ///< at least; two where time runs out
  bool one_call = false;  ///< a contender is called once a round, so that each follows the one before it
};

/// What a row's measurement found.
struct paired_times {
  std::vector<double>
      ms;  ///< the best call of each contender in the same rounds; not a number where there is no contender
  int rounds = 0;
  double others = 0;     ///< share of the machine's CPU time that other programs took meanwhile; not a number: unknown
  bool reliable = true;  ///< false: a contender was disturbed in all rounds but one, or its rounds are too far apart
};

namespace detail {
/// Of a thread's wall time, what it must have run in a call that counts.
inline constexpr double least_running = 0.8;
/// Two rounds of a contender must be as close as this.
inline constexpr double largest_spread = 1.25;
/// The share of others from which a thread that did not run is taken to have waited for them, and not for its own siblings.
inline constexpr double busy_share = 0.05;

inline constexpr double nothing = std::numeric_limits<double>::infinity();

struct contender_times {
  bool once = false;                        ///< it is long
  double best = nothing, second = nothing;  ///< of its rounds
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

/// Calls each contender, which returns its own seconds, in turn: in each round a contender gets the same part of the time, one call at least. So a machine
/// that slows down does so for all of them, and ratios are of the same rounds. A call is disturbed if its threads did not run while the clock did, and
/// somebody else wanted the processor: a thread was taken off it, or other programs are busy. A disturbed call does not count. A contender whose first
/// call fills the row's time is called once, or again until one call counts.
template <class Clock>
paired_times measure_paired(std::vector<std::function<double()>> const& contenders, paired_plan plan, Clock& clock) {
  using detail::contender_times, detail::nothing;
  plan.threads = std::min(plan.threads, usable_processors());
  std::vector<contender_times> all(contenders.size());
  auto const present = static_cast<double>(std::max<std::ptrdiff_t>(
      1, std::count_if(contenders.begin(), contenders.end(), [](auto const& c) { return bool(c); })));
  double const slice = plan.row_seconds / present / plan.rounds, others_from = clock.others(),
               start = clock.read().wall;
  double const processors = clock.processors();
  auto const others = [&] {
    return (clock.others() - others_from) / (std::max(clock.read().wall - start, 1e-9) * processors);
  };

  double busy = 0;
  /// Seconds of the call if it counts, else infinity.
  auto const call = [&](std::size_t i) {
    clock_reading const from = clock.read();
    double const seconds = contenders[i]();
    clock_reading const to = clock.read();
    bool const waited_for_others = to.switches > from.switches || busy > detail::busy_share;
    return detail::ran(from, to, plan.threads) || !waited_for_others ? seconds : nothing;
  };
  auto const finished = [&] {
    return std::all_of(all.begin(), all.end(), [](contender_times const& s) { return s.enough(); });
  };
  for (std::size_t i = 0; i < all.size(); i++) {
    if (!contenders[i]) {
      all[i].once = true, all[i].best = 0;
      continue;
    }
    double const before = clock.read().wall, counts = call(i);
    all[i].once = !plan.one_call && clock.read().wall - before >= plan.row_seconds;
    if (all[i].once) all[i].count(counts);  // the first call of the others warms up
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
    result.ms.push_back(contenders[i] && all[i].best < nothing ? all[i].best * 1e3
                                                               : std::numeric_limits<double>::quiet_NaN());
  return result;
}

inline paired_times measure_paired(std::vector<std::function<double()>> const& contenders, paired_plan const& plan) {
  process_clock clock;
  return measure_paired(contenders, plan, clock);
}

/// Seconds of a call; infinite if it was disturbed.
template <class Call>
double undisturbed_seconds(process_clock const& clock, int threads, Call const& call) {
  clock_reading const from = clock.read();
  call();
  clock_reading const to = clock.read();
  return to.switches == from.switches || detail::ran(from, to, std::min(threads, usable_processors()))
             ? to.wall - from.wall
             : detail::nothing;
}

/// Seconds of a call that was not disturbed, or of the fourth: for choices that are made by trying.
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
