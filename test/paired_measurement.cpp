// The benchmarks' interleaved measurement, on a clock that the test turns: disturbed rows are dropped, undisturbed
// ones kept, and ratios are of the same rounds.
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <tuple>
#include <vector>

#include "../bench/comparisons/conv_vs_fft/report.hpp"
#include "../bench/comparisons/conv_vs_fft/summary.hpp"
#include "../bench/support/machine.hpp"
#include "../bench/support/paired.hpp"

namespace tcnca::bench {
namespace {

/// A machine with one processor: time passes where a contender says so.
struct fake_clock {
  clock_reading now;
  double taken = 0;  ///< CPU seconds of others
  clock_reading read() const { return now; }
  double others() const { return taken; }
  int processors() const { return 1; }
  void refresh() {}

  void run(double seconds) { now.wall += seconds, now.cpu += seconds; }
  /// Another program runs, and this one's thread waits for the processor.
  void lose(double seconds) { now.wall += seconds, taken += seconds, now.switches++; }
  /// A thread waits for its sibling: it does not run, and nobody wants its processor.
  void idle(double seconds) { now.wall += seconds; }
};

/// A contender that runs for `seconds` and what `disturb` adds.
std::function<double()> calls(
    fake_clock& clock, double seconds, std::function<void()> disturb = [] {}) {
  return [&clock, seconds, disturb] {
    double const start = clock.now.wall;
    clock.run(seconds);
    disturb();
    return clock.now.wall - start;
  };
}

constexpr paired_plan plan{1, 0.5, 5, false};

TEST(paired_measurement, keeps_an_undisturbed_row) {
  fake_clock clock;
  auto const t = measure_paired({calls(clock, 0.001), calls(clock, 0.004)}, plan, clock);
  EXPECT_TRUE(t.reliable);
  EXPECT_EQ(t.rounds, 5);
  EXPECT_NEAR(t.ms[0], 1, 1e-9);
  EXPECT_NEAR(t.ms[1], 4, 1e-9);
  EXPECT_NEAR(t.others, 0, 1e-12);
}

// A quantum of the scheduler in every call: 8 ms beside 0.07.
TEST(paired_measurement, drops_a_row_with_a_contender_that_is_disturbed_in_every_call) {
  fake_clock clock;
  auto const t =
      measure_paired({calls(clock, 0.00007), calls(clock, 0.00007, [&] { clock.lose(0.008); })}, plan, clock);
  EXPECT_FALSE(t.reliable);
  EXPECT_GE(t.rounds, 12);  // it tried three times as long
  EXPECT_GT(t.others, 0.3);
  EXPECT_TRUE(std::isnan(t.ms[1])) << "8 ms is no measurement of 0.07 ms";
}

TEST(paired_measurement, keeps_a_row_that_is_disturbed_in_most_calls_and_counts_the_others) {
  fake_clock clock;
  int n = 0;
  auto const t = measure_paired({calls(clock, 0.00007,
                                       [&] {
                                         if (n++ % 4 != 0) clock.lose(0.008);
                                       })},
                                plan, clock);
  EXPECT_TRUE(t.reliable);
  EXPECT_NEAR(t.ms[0], 0.07, 1e-9);
}

TEST(paired_measurement, drops_a_row_of_which_one_round_alone_was_undisturbed) {
  fake_clock clock;
  int n = 0;
  auto const t = measure_paired({calls(clock, 0.001,
                                       [&] {
                                         if (n++ != 40) clock.lose(0.008);
                                       })},
                                plan, clock);
  EXPECT_FALSE(t.reliable);
}

TEST(paired_measurement, drops_a_row_whose_rounds_are_far_apart) {
  fake_clock clock;
  auto const t = measure_paired(
      {[&] {
        double const start = clock.now.wall;
        clock.run(0.001 * std::exp(5 * start));  // at the end of a round 1.6 times what it was at its start
        return clock.now.wall - start;
      }},
      plan, clock);
  EXPECT_FALSE(t.reliable);
}

// Imbalance between a program's own threads is part of its time.
TEST(paired_measurement, keeps_a_row_whose_threads_wait_for_one_another) {
  fake_clock clock;
  auto const t = measure_paired({calls(clock, 0.001, [&] { clock.idle(0.001); })}, plan, clock);
  EXPECT_TRUE(t.reliable);
  EXPECT_NEAR(t.ms[0], 2, 1e-9);
}

TEST(paired_measurement, a_ratio_is_of_interleaved_rounds) {
  fake_clock clock;
  // The machine becomes twice as slow within the measurement: whoever is measured in its second half would lose half
  // as much again.
  auto const slowing = [&](double seconds) {
    return [&clock, seconds] {
      double const start = clock.now.wall;
      clock.run(seconds * (1 + 2 * clock.now.wall));
      return clock.now.wall - start;
    };
  };
  std::vector<int> order;
  auto const noted = [&](int who, std::function<double()> f) {
    return [&order, who, f] {
      if (order.empty() || order.back() != who) order.push_back(who);
      return f();
    };
  };
  auto const t = measure_paired({noted(0, slowing(0.001)), noted(1, slowing(0.002))}, plan, clock);
  EXPECT_NEAR(t.ms[1] / t.ms[0], 2, 0.25);
  EXPECT_GE(order.size(), 10u) << "five rounds, turn about";
  for (std::size_t i = 0; i < order.size(); i++) EXPECT_EQ(order[i], int(i % 2));
}

TEST(paired_measurement, a_missing_contender_has_no_time_and_drops_nothing) {
  fake_clock clock;
  auto const t = measure_paired({calls(clock, 0.001), {}}, plan, clock);
  EXPECT_TRUE(t.reliable);
  EXPECT_TRUE(std::isnan(t.ms[1]));
}

TEST(paired_measurement, a_long_contender_is_called_once_or_until_a_call_counts) {
  fake_clock clock;
  int quiet = 0, busy = 0;
  auto const t = measure_paired({calls(clock, 2, [&] { quiet++; }), calls(clock, 0.6,
                                                                          [&] {
                                                                            if (busy++ < 2) clock.lose(0.6);
                                                                          })},
                                plan, clock);
  EXPECT_TRUE(t.reliable);
  EXPECT_EQ(quiet, 1);
  EXPECT_EQ(busy, 3);
  EXPECT_NEAR(t.ms[1], 600, 1e-6);
}

TEST(paired_measurement, calls_one_by_one_where_each_follows_the_one_before) {
  fake_clock clock;
  std::vector<int> order;
  auto const who = [&](int i) { return calls(clock, 0.001, [&order, i] { order.push_back(i); }); };
  auto const t = measure_paired({who(0), who(1), who(2)}, paired_plan{1, 0.06, 5, true}, clock);
  EXPECT_TRUE(t.reliable);
  EXPECT_GE(t.rounds, 20);
  for (std::size_t i = 0; i < order.size(); i++) EXPECT_EQ(order[i], int(i % 3));
}

TEST(paired_measurement, time_of_a_device_is_not_held_against_threads) {
  fake_clock clock;
  paired_plan const device{0, 0.5, 5, false};
  auto const t = measure_paired({calls(clock, 0, [&] { clock.idle(0.001), clock.now.switches++; })}, device, clock);
  EXPECT_TRUE(t.reliable);
  EXPECT_NEAR(t.ms[0], 1, 1e-9);
}

// The plan is for two threads; this contender has one, and a context switch that it did not wait for.
TEST(paired_measurement, a_contender_may_have_fewer_threads_than_the_plan) {
  fake_clock clock;
  auto const switched = calls(clock, 0.001, [&] { clock.now.switches++; });
  paired_plan const two{2, 0.5, 5, false};
  EXPECT_TRUE(measure_paired({{switched, 1}}, two, clock).reliable);
  EXPECT_EQ(measure_paired({switched}, two, clock).reliable, usable_processors() == 1);
}

TEST(process_clock, counts_the_time_of_this_process_on_all_threads) {
  process_clock clock;
  auto const before = clock.read();
  double x = 1;
  while (clock.read().wall < before.wall + 0.02) x = std::sqrt(x + 1);
  auto const after = clock.read();
  EXPECT_GT(x, 0);
  EXPECT_GT(after.cpu - before.cpu, 0);
  EXPECT_LE(after.cpu - before.cpu, (after.wall - before.wall) * 1.5);
}

TEST(machine_record, says_how_many_rows_were_dropped) {
  machine_record m(2, "abc1234");
  m.drop("cpu, fp32, length 1024, K4f4D6");
  m.finish(7);
  EXPECT_NE(m.warning().find("1 of 8 rows could not be measured"), std::string::npos) << m.warning();
  for (char const* const part : {"\"commit\": \"abc1234\"", "\"rows\": 7", "\"rows_dropped\": 1", "\"others_share\": ",
                                 "\"load_before\": ", "\"dropped\": [\"cpu, fp32, length 1024, K4f4D6\"]"})
    EXPECT_NE(m.to_json().find(part), std::string::npos) << part << " in " << m.to_json();
}

TEST(report, says_that_an_opponent_was_left_out_and_that_rows_were_dropped) {
  std::string const file = ::testing::TempDir() + "paired_measurement.md";
  write_report({}, "1 of 1 rows could not be measured.",
               {"oneDNN is left out: it was not found when this program was built."}, file);
  std::ifstream in(file);
  std::string const text{std::istreambuf_iterator<char>(in), {}};
  EXPECT_EQ(text,
            "**1 of 1 rows could not be measured.**\n\n\noneDNN is left out: it was not found when this program was "
            "built.\n");
}

TEST(report, compares_the_fastest_stack_that_sees_the_whole_sequence) {
  std::vector<row> rows;
  for (auto const& [stack, length, ms] :
       {std::tuple{0, 131072, 1.0}, {3, 131072, 8.0}, {4, 131072, 4.0}, {4, 1024, 1.0}}) {
    row r;
    r.backend = "cpu", r.dtype = "fp32", r.shape = compared_stacks[static_cast<size_t>(stack)];
    r.p = {2, 64, length, 2}, r.conv_ms = ms, r.fft_given_ms = 32;
    rows.push_back(r);
  }
  EXPECT_EQ(equal_field_sentences(rows),
            std::vector<std::string>{"cpu, fp32, forward, length 131072: the fastest stack that sees the whole "
                                     "sequence, as the FFT does, is K4f4D9, 8.00x over the FFT."});
  rows.resize(1);
  EXPECT_TRUE(equal_field_sentences(rows).empty()) << "K4f4D6 sees 4096 positions";
}

TEST(report, a_limit_that_was_not_measured_is_no_number) {
  row r;
  r.backend = "cpu", r.dtype = "fp32", r.shape = compared_stacks[0], r.p = {1, 1, 1024, 1}, r.conv_ms = 1,
  r.limit = {.operations = 1, .bytes = 1, .fma_rate = 1e9, .copy_rate = not_measured};
  EXPECT_TRUE(std::isnan(r.percent_of_limit()));
  EXPECT_NE(to_json(r).find("\"percent_of_limit\": null, \"limit\": null"), std::string::npos) << to_json(r);
}

}  // namespace
}  // namespace tcnca::bench
