// The kernel of short rows: the bits of the generic kernel at every length, and nothing written or read outside of the
// rows.
#include <tcnca/conv_stack/vector/short_rows.hpp>
#include <tcnca/launch/launch.hpp>

#include "short_rows_cases.hpp"

namespace tcnca::testing {
namespace {

template <class S, int Bytes = detail::register_bytes>
using agent_of = conv_stack_short_rows_agent<serial_group, typename S::T, S::shape, policy_of<S>(Bytes)>;

template <class S>
struct conv_stack_short_rows : ::testing::Test {};
TYPED_TEST_SUITE_P(conv_stack_short_rows);

/// Runs the kernel and expects the bits of y that the public call with generic kernels computes.
template <class Agent, class S>
void expect_same(extents const& e, std::uint64_t seed, bool streaming = false) {
  SCOPED_TRACE(::testing::Message() << e << ", seed " << seed << ", width " << Agent::width);
  conv_stack_problem<S> problem(e, seed);
  auto const args = problem.forward();
  ASSERT_TRUE(Agent::can_run(args));
  problem.run_forward(seed);
  auto const expected = problem.y.bits();
  problem.y.clear();
  ASSERT_TRUE(launch<Agent>(cpu{int(seed % 3)}, Agent::make_params(args, streaming)).ok());
  EXPECT_TRUE(problem.y.bits() == expected);
  EXPECT_TRUE(problem.y.intact()) << "written outside of y";
  if (seed % 8 == 0) problem.expect_forward();
  problem.expect_inputs_untouched();
}

TYPED_TEST_P(conv_stack_short_rows, has_the_bits_of_the_generic_kernel) {
  using S = TypeParam;
  using agent = agent_of<S>;
  static_assert(agent::exists);
  for (index_t length = 0; length <= agent::longest; length++) {
    auto const seed = std::uint64_t(length);
    random_bits r{seed};
    extents e{.batch = between(r, 1, 3), .channels = between(r, 1, 7), .length = length};
    if (between(r, 0, 1)) e.where = {between(r, 0, 9), between(r, 0, 9)};
    expect_same<agent, S>(e, seed);
    if (this->HasFailure()) return;
  }
}

// A call with several items, whose last one is not complete.
TYPED_TEST_P(conv_stack_short_rows, has_the_bits_of_the_generic_kernel_in_many_rows) {
  using S = TypeParam;
  using agent = agent_of<S>;
  index_t const w = agent::width;
  for (index_t const length : {index_t(1), w + 1, 3 * w, 5 * w - 1}) {
    expect_same<agent, S>({.batch = 3, .channels = 2 * agent::blocks_per_item + 3, .length = length}, 16);
    expect_same<agent, S>({.batch = 4 * agent::blocks_per_item + 3, .channels = 1, .length = length}, 16);
  }
}

// Non-temporal stores, to rows that are whole cache lines.
TYPED_TEST_P(conv_stack_short_rows, streams) {
  using S = TypeParam;
  using agent = agent_of<S>;
  index_t const line = 64 / index_t(sizeof(typename S::T));
  for (index_t length = line; length <= agent::longest; length += line)
    expect_same<agent, S>({.batch = 2, .channels = 5, .length = length}, 16, true);
}

// Vectors shorter than those of the processor.
TYPED_TEST_P(conv_stack_short_rows, has_the_same_bits_in_short_vectors) {
  using S = TypeParam;
  using agent = agent_of<S, 16>;
  for (index_t length = 1; length <= agent::longest; length += length < 8 ? 1 : 3)
    expect_same<agent, S>({.batch = 2, .channels = 3, .length = length}, std::uint64_t(length));
}

// What a row contains does not reach another one.
TYPED_TEST_P(conv_stack_short_rows, keeps_infinities_in_their_rows) {
  using S = TypeParam;
  using agent = agent_of<S>;
  for (index_t length = 1; length <= agent::longest; length += 7) {
    conv_stack_problem<S> problem({.batch = 2, .channels = 9, .length = length}, 5);
    auto const args = problem.forward();
    ASSERT_TRUE(launch<agent>(cpu{1}, agent::make_params(args, false)).ok());
    auto const y = problem.y.bits();
    for (index_t t = 0; t < length; t++) {
      *problem.x.view().at(0, 4, t) = from_accumulate<typename S::T>(std::numeric_limits<typename S::A>::infinity());
    }
    ASSERT_TRUE(launch<agent>(cpu{1}, agent::make_params(args, false)).ok());
    auto const after = problem.y.bits();
    std::size_t const bytes = std::size_t(length) * sizeof(typename S::T);
    for (std::size_t i = 0; i < y.size(); i++) {
      if (i / bytes != 4) { ASSERT_EQ(y[i], after[i]) << "row " << i / bytes; }
    }
  }
}

TYPED_TEST_P(conv_stack_short_rows, knows_what_it_can_do) {
  using S = TypeParam;
  using agent = agent_of<S>;
  conv_stack_problem<S> const longest({.length = agent::longest}, 1), longer({.length = agent::longest + 1}, 1);
  EXPECT_TRUE(agent::can_run(longest.forward()));
  EXPECT_FALSE(agent::can_run(longer.forward()));
  if constexpr (S::causal && S::op::state_length > 0) {
    conv_stack_problem<S> const from({.length = 3, .state_in = true}, 1), to({.length = 3, .state_out = true}, 1);
    EXPECT_FALSE(agent::can_run(from.forward()));
    EXPECT_FALSE(agent::can_run(to.forward()));
  }
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_short_rows, has_the_bits_of_the_generic_kernel,
                            has_the_bits_of_the_generic_kernel_in_many_rows, streams,
                            has_the_same_bits_in_short_vectors, keeps_infinities_in_their_rows, knows_what_it_can_do);

INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_short_rows, short_rows_subjects, subject_name);

}  // namespace
}  // namespace tcnca::testing
