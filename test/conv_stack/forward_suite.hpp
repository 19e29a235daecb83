// The forward pass against the reference at edge extents; the same bits for every order of threads; pieces joined by
// the state equal one call.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct conv_stack_forward : ::testing::Test {};
TYPED_TEST_SUITE_P(conv_stack_forward);

TYPED_TEST_P(conv_stack_forward, matches_the_reference_at_edges) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t seed = 1;
  for (index_t const length : edge_lengths<S>()) {
    extents e{.batch = 2, .channels = 3, .length = length, .position = 5};
    for (int state = 0; state < (S::causal ? 4 : 1); state++) {
      e.state_in = state & 1, e.state_out = state & 2;
      e.where = seed % 2 ? placement{} : placement{int(seed % 5), int(seed % 3)};
      SCOPED_TRACE(::testing::Message() << e << ", seed " << seed);
      conv_stack_problem<S> problem(e, seed);
      problem.run_forward(seed);
      problem.expect_forward();
      if (this->HasFailure()) return;
      seed++;
    }
  }
}

TYPED_TEST_P(conv_stack_forward, matches_the_reference_at_random_extents) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 150);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    extents const e = random_extents<S>(r);
    SCOPED_TRACE(::testing::Message() << e << ", TCNCA_TEST_SEED=" << seed);
    conv_stack_problem<S> problem(e, seed);
    problem.run_forward(seed);
    problem.expect_forward();
    if (this->HasFailure()) return;
  }
}

// Other orders of the fibers, other numbers of threads or groups: the same bits.
TYPED_TEST_P(conv_stack_forward, repeats_bit_by_bit) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  extents const e{
      .batch = 1, .channels = 3, .length = S::policy.tile * 5 + 3, .state_in = S::causal, .state_out = S::causal};
  conv_stack_problem<S> problem(e, 7);
  problem.run_forward(0);
  auto const y = problem.y.bits(), state = problem.state_out.bits();
  for (std::uint64_t seed = 1; seed <= environment("TCNCA_TEST_ORDERS", 16); seed++) {
    problem.y.clear(), problem.state_out.clear();
    problem.run_forward(seed);
    ASSERT_TRUE(problem.y.bits() == y && problem.state_out.bits() == state) << "seed " << seed;
  }
}

// A sequence cut anywhere and joined by its state, in place or not, gives the same results as one call.
TYPED_TEST_P(conv_stack_forward, pieces_equal_one_call) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!S::causal) return;
  index_t const length = S::policy.tile * 3 + S::op::receptive_field + 5;
  for (std::uint64_t seed = 1; seed <= 6; seed++) {
    random_bits r{seed};
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    bool const state = seed % 2;
    conv_stack_problem<S> whole({.batch = 2,
                                 .channels = 3,
                                 .length = length,
                                 .position = index_t(seed * 1000),
                                 .state_in = state,
                                 .state_out = true},
                                seed);
    whole.run_forward(seed);
    auto const y = whole.y.bits(), last_state = whole.state_out.bits();
    whole.y.clear();
    auto const args = whole.forward();
    auto carried = whole.template new_sequence<typename S::A>(S::op::state_length);
    carried.assign(whole.p.state_in);
    bool has_state = state;
    for (index_t done = 0; done < length;) {
      index_t const n = seed == 1 && done < 70 ? 1 : std::min<index_t>(length - done, between(r, 0, int(length / 2)));
      bool const in_place = has_state && between(r, 0, 1);
      auto next = whole.template new_sequence<typename S::A>(S::op::state_length);
      auto part = args;
      part.position = args.position + done;
      part.x.extent[2] = part.y.extent[2] = n;
      part.x.data += done * part.x.stride[2];
      part.y.data += done * part.y.stride[2];
      part.state_in = has_state ? carried.view() : part.state_in;
      part.state_out = in_place ? carried.view() : next.view();
      conv_stack_problem<S>::run_forward(part, seed + std::uint64_t(done));
      if (!in_place) std::swap(carried, next);
      has_state = true;
      done += n;
    }
    if (S::forward_rounds) {  // short calls do not round
      whole.expect_forward(carried);
      if (::testing::Test::HasFailure()) return;
      continue;
    }
    ASSERT_TRUE(whole.y.bits() == y) << "y";
    ASSERT_TRUE(carried.bits() == last_state) << "state_out";
  }
}

// Calls of one token, and of one to four tokens in turn.
TYPED_TEST_P(conv_stack_forward, few_tokens_in_place_equal_one_call) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!S::causal) return;
  index_t const length = std::min<index_t>(S::op::receptive_field + 20, 150);
  for (index_t const most : {1, 4}) {
    SCOPED_TRACE(::testing::Message() << "up to " << most << " tokens");
    conv_stack_problem<S> whole(
        {.batch = 2, .channels = 5, .length = length, .position = 11, .state_in = true, .state_out = true}, 3);
    whole.run_forward();
    auto const y = whole.y.bits();
    auto args = whole.forward();
    whole.y.clear();
    auto state = whole.template new_sequence<typename S::A>(S::op::state_length);
    state.assign(whole.p.state_in);
    for (index_t t = 0, n; t < length; t += n) {
      n = std::min<index_t>(length - t, 1 + t % most);
      auto tokens = args;
      tokens.position += t;
      tokens.x.extent[2] = tokens.y.extent[2] = n;
      tokens.x.data += t * tokens.x.stride[2];
      tokens.y.data += t * tokens.y.stride[2];
      tokens.state_in = tokens.state_out = state.view();
      conv_stack_problem<S>::run_forward(tokens, std::uint64_t(t));
    }
    if (S::forward_rounds) {
      whole.expect_forward(state);
      continue;
    }
    EXPECT_TRUE(whole.y.bits() == y) << "y";
    EXPECT_TRUE(state.bits() == whole.state_out.bits()) << "state";
  }
}

// A stride of 0 broadcasts an input.
TYPED_TEST_P(conv_stack_forward, broadcasts_inputs) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  conv_stack_problem<S> one({.batch = 1, .channels = 3, .length = 40, .state_in = S::causal}, 3),
      many({.batch = 3, .channels = 3, .length = 40}, 3);
  one.run_forward();
  auto args = one.forward();
  args.y = many.y.view();
  args.x.extent[0] = 3, args.x.stride[0] = 0;
  if (S::causal) args.state_in.extent[0] = 3, args.state_in.stride[0] = 0;
  conv_stack_problem<S>::run_forward(args, 1);
  auto const y = many.y.bits(), first = one.y.bits();
  for (std::size_t i = 0; i < y.size(); i++) ASSERT_EQ(y[i], first[i % first.size()]);
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_forward, matches_the_reference_at_edges, matches_the_reference_at_random_extents,
                            repeats_bit_by_bit, pieces_equal_one_call, few_tokens_in_place_equal_one_call,
                            broadcasts_inputs);

}  // namespace
}  // namespace tcnca::testing
