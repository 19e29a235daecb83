// Tests of the fiber executor: it runs every rank, its barriers work, and it detects the faults that it must detect.
#include "support/fiber.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <set>
#include <vector>

namespace tcnca::testing {
namespace {

enum class fault { none, missing_sync, divergence, overrun, leftover };

struct parameters {
  int const* in;
  int* out;
  int n;
};

/// out[item][i] = in[n - 1 - i], through shared memory, with an optional fault.
template <class Group, fault Fault>
struct reverse_agent {
  using A = int;
  using group_type = Group;
  Group group;
  parameters const& params;
  int* buffer;

  reverse_agent(Group g, parameters const& p, int* shared_memory, int*) : group(g), params(p), buffer(shared_memory) {}

  void operator()(index_t item) const {
    int const n = params.n;
    for (int i = group.rank(); i < n; i += group.size()) buffer[i] = params.in[i];
    if (Fault == fault::divergence && group.rank() == group.size() / 2) return;
    if (Fault != fault::missing_sync) group.sync();
    for (int i = group.rank(); i < n; i += group.size()) params.out[item * n + i] = buffer[n - 1 - i];
    if (Fault != fault::leftover) group.sync();  // the next item overwrites shared memory
    if (Fault == fault::overrun && group.rank() == 0) buffer[n] = 1;
  }
};

template <fault Fault, int Threads>
status reverse(std::vector<int> const& in, std::vector<int>& out, index_t items, std::uint64_t seed, int groups = 3) {
  parameters const p{in.data(), out.data(), int(in.size())};
  using executor = fibers<Threads>;
  using agent = reverse_agent<fiber_group<Threads>, Fault>;
  return executor_traits<executor>::template launch<agent>(executor{seed, groups}, p, items,
                                                           {in.size() * sizeof(int), 0}, {});
}

std::vector<int> count_up(int n) {
  std::vector<int> v(static_cast<std::size_t>(n));
  std::iota(v.begin(), v.end(), 1);
  return v;
}

template <fault Fault, int Threads>
void expect_reversed(int n, index_t items) {
  auto const in = count_up(n);
  for (std::uint64_t seed = 1; seed <= 5; seed++) {
    std::vector<int> out(static_cast<std::size_t>(n * items), 0);
    ASSERT_TRUE((reverse<Fault, Threads>(in, out, items, seed).ok()));
    for (index_t i = 0; i < n * items; i++) ASSERT_EQ(out[std::size_t(i)], n - i % n) << "seed " << seed;
  }
}

TEST(fiber_group, every_rank_runs_and_barriers_hold) {
  expect_reversed<fault::none, 1>(7, 4);
  expect_reversed<fault::none, 32>(7, 4);
  expect_reversed<fault::none, 64>(1000, 4);
  expect_reversed<fault::none, 256>(1000, 7);
}

TEST(fiber_group, order_depends_on_the_seed_alone) {
  struct record {
    std::vector<int> ranks;
    static void body(void* self, int rank) {
      auto& s = fiber_scheduler::get();
      for (int i = 0; i < 2; i++) {
        static_cast<record*>(self)->ranks.push_back(rank);
        if (i == 0) s.barrier();
      }
    }
  };
#if !defined(TCNCA_TEST_TSAN)  // the record is shared without a barrier
  std::set<std::vector<int>> seen;
  for (std::uint64_t seed = 1; seed <= 20; seed++) {
    record a, b;
    ASSERT_TRUE(fiber_scheduler::get().run(16, &record::body, &a, seed, 0));
    ASSERT_TRUE(fiber_scheduler::get().run(16, &record::body, &b, seed, 0));
    EXPECT_EQ(a.ranks, b.ranks);
    EXPECT_EQ(std::set<int>(a.ranks.begin(), a.ranks.begin() + 16).size(), 16u);  // all ranks before the barrier,
    EXPECT_EQ(std::set<int>(a.ranks.begin() + 16, a.ranks.end()).size(), 16u);    // all ranks after it
    seen.insert(a.ranks);
  }
  EXPECT_EQ(seen.size(), 20u);
#endif
}

TEST(fiber_group, divergence_is_reported_and_leaves_the_executor_usable) {
  auto const in = count_up(100);
  std::vector<int> out(400);
  EXPECT_EQ((reverse<fault::divergence, 64>(in, out, 4, 1)), status_code::launch_failed);
  expect_reversed<fault::none, 64>(100, 4);
}

#if defined(TCNCA_TEST_ASAN)
TEST(fiber_group_death, writes_outside_of_shared_memory_are_reported) {
  auto const in = count_up(100);
  std::vector<int> out(400);
  EXPECT_DEATH((void)(reverse<fault::overrun, 64>(in, out, 1, 1)), "AddressSanitizer");
}
#else
TEST(fiber_group, writes_outside_of_shared_memory_are_reported) {
  auto const in = count_up(100);
  std::vector<int> out(400);
  EXPECT_EQ((reverse<fault::overrun, 64>(in, out, 1, 1)), status_code::launch_failed);
}
#endif

#if defined(TCNCA_TEST_TSAN)
// A race is reported whether or not it changed the result; the process then exits with a distinct code.
template <fault Fault>
void run_once() {
  auto const in = count_up(100);
  std::vector<int> out(400);
  bool const good = reverse<Fault, 64>(in, out, 2, 1, 1).ok();
  std::exit(good ? 0 : 1);
}
bool failed(int exit_status) { return exit_status != 0; }
struct fiber_group_death : ::testing::Test {
  // The child process starts again: the detector does not follow fibers across a fork.
  fiber_group_death() { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
};
TEST_F(fiber_group_death, missing_sync_is_a_data_race) {
  EXPECT_EXIT(run_once<fault::missing_sync>(), failed, "data race");
}
TEST_F(fiber_group_death, missing_sync_between_items_is_a_data_race) {
  EXPECT_EXIT(run_once<fault::leftover>(), failed, "data race");
}
TEST_F(fiber_group_death, no_race_no_report) { EXPECT_EXIT(run_once<fault::none>(), ::testing::ExitedWithCode(0), ""); }

// Two groups that write the same element are a race, although they never run at the same time.
void groups_that_meet() {
  static int volatile shared;
  struct meet {
    static void body(void*, int rank) {
      if (rank == 0) shared = shared + 1;
    }
  };
  auto& s = fiber_scheduler::get();
  bool good = true;
  for (int group = 0; group < 4; group++) good = s.run(8, &meet::body, nullptr, std::uint64_t(group), group) && good;
  s.join();
  std::exit(good ? 0 : 1);
}
TEST_F(fiber_group_death, groups_are_not_ordered) { EXPECT_EXIT(groups_that_meet(), failed, "data race"); }
#else
template <fault Fault>
int seeds_that_show_it() {
  auto const in = count_up(100);
  std::vector<int> expected(400), out(400);
  EXPECT_TRUE((reverse<fault::none, 64>(in, expected, 4, 1, 1).ok()));
  int seen = 0;
  for (std::uint64_t seed = 1; seed <= 20; seed++) {
    EXPECT_TRUE((reverse<Fault, 64>(in, out, 4, seed, 1).ok()));
    seen += out != expected;
  }
  return seen;
}
TEST(fiber_group, missing_sync_changes_bits) { EXPECT_EQ(seeds_that_show_it<fault::missing_sync>(), 20); }
// Every item stores the same values, so results do not show this race; only the detector does.
TEST(fiber_group, benign_orders_pass) { EXPECT_EQ(seeds_that_show_it<fault::none>(), 0); }
#endif

}  // namespace
}  // namespace tcnca::testing
