// The backward pass against the reference at edge extents; the same bits for every order of threads; calls joined by
// the state equal one call.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct conv_stack_backward : ::testing::Test {};
TYPED_TEST_SUITE_P(conv_stack_backward);

TYPED_TEST_P(conv_stack_backward, matches_the_reference_at_edges) {
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
      problem.want_gradients();
      problem.run_backward(seed);
      problem.expect_backward();
      if (this->HasFailure()) return;
      seed++;
    }
  }
}

TYPED_TEST_P(conv_stack_backward, matches_the_reference_at_random_extents) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 80);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    extents const e = random_extents<S>(r);
    SCOPED_TRACE(::testing::Message() << e << ", TCNCA_TEST_SEED=" << seed);
    conv_stack_problem<S> problem(e, seed);
    problem.want_gradients();
    problem.run_backward(seed);
    problem.expect_backward();
    if (this->HasFailure()) return;
  }
}

// Sequences longer than two fp32 partial sums. (common/long_sums.cpp tests their precision, and threads that share a
// sequence.)
TYPED_TEST_P(conv_stack_backward, matches_the_reference_beyond_one_partial_sum) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (executor_traits<typename S::backend::executor>::target.compute_capability != 0) return;
  index_t const lanes = S::shape.order == layout::batch_channels_length ? 16 / index_t(sizeof(typename S::A)) : 1;
  conv_stack_problem<S> problem(
      {.batch = 2, .channels = 2, .length = 2 * 1024 * lanes + 77, .state_in = S::causal, .state_out = S::causal}, 4);
  problem.want_gradients();
  problem.run_backward(1);
  problem.expect_backward();
}

TYPED_TEST_P(conv_stack_backward, repeats_bit_by_bit) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  extents const e{
      .batch = 2, .channels = 3, .length = S::policy.tile * 4 + 3, .state_in = S::causal, .state_out = S::causal};
  conv_stack_problem<S> problem(e, 7);
  problem.want_gradients();
  auto const bits = [&] {
    return std::tuple{problem.grad_x.bits(), problem.grad_weight.bits(), problem.grad_bias.bits(),
                      problem.grad_omega.bits(), problem.grad_state_in.bits()};
  };
  problem.run_backward(0);
  auto const first = bits();
  for (std::uint64_t seed = 1; seed <= environment("TCNCA_TEST_ORDERS", 12); seed++) {
    problem.grad_x.clear(), problem.grad_weight.clear(), problem.grad_bias.clear(), problem.grad_omega.clear(),
        problem.grad_state_in.clear();
    problem.run_backward(seed);
    ASSERT_TRUE(bits() == first) << "seed " << seed;
  }
}

// Two calls joined by the state equal one call. The backward pass of the second piece comes first; its grad_state_in is
// the first's grad_state_out.
TYPED_TEST_P(conv_stack_backward, pieces_equal_one_call) {
  using S = TypeParam;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  if (!S::causal) return;
  index_t const length = S::policy.tile + S::op::receptive_field + 5;
  for (index_t const cut : {index_t(0), index_t(1), index_t(7), S::op::receptive_field, length - 1, length}) {
    SCOPED_TRACE(::testing::Message() << "cut at " << cut);
    conv_stack_problem<S> whole(
        {.batch = 2, .channels = 3, .length = length, .position = 9, .state_in = true, .state_out = true}, 5);
    whole.want_gradients();
    auto const state = whole.template new_sequence<A>(S::op::state_length),
               grad_state = whole.template new_sequence<A>(S::op::state_length);
    auto const part = [&](auto args, index_t from, index_t n) {
      args.position += from;
      for (auto* const v : {&args.x, &args.grad_y}) v->extent[2] = n, v->data += from * v->stride[2];
      args.grad_x.extent[2] = n, args.grad_x.data += from * args.grad_x.stride[2];
      return args;
    };
    auto forward = whole.forward();
    forward.x.extent[2] = forward.y.extent[2] = cut;
    forward.state_out = state.view();
    conv_stack_problem<S>::run_forward(forward, 1);

    auto second = part(whole.backward(), cut, length - cut);
    second.state_in = state.view(), second.grad_state_in = grad_state.view();
    whole.run_backward(second, 1);
    auto const weight = whole.grad_weight.values(), bias = whole.grad_bias.values(), omega = whole.grad_omega.values();
    auto first = part(whole.backward(), 0, cut);
    first.grad_state_out = grad_state.view();
    whole.run_backward(first, 2);
    auto const add = [](auto& to, std::vector<double> const& more) {
      for (std::size_t i = 0; i < more.size(); i++) *to.at(index_t(i)) += A(more[i]);
    };
    add(whole.grad_weight, weight), add(whole.grad_bias, bias), add(whole.grad_omega, omega);
    whole.expect_backward();
  }
}

// Every gradient is optional.
TYPED_TEST_P(conv_stack_backward, absent_gradients_change_no_others) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  conv_stack_problem<S> problem(
      {.batch = 2, .channels = 3, .length = 100, .state_in = S::causal, .state_out = S::causal}, 5);
  problem.want_gradients();
  expect_optional_gradients(problem, problem.backward(),
                            [](auto const& args) { conv_stack_problem<S>::run_backward(args, 1); });
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_backward, matches_the_reference_at_edges,
                            matches_the_reference_at_random_extents, matches_the_reference_beyond_one_partial_sum,
                            repeats_bit_by_bit, pieces_equal_one_call, absent_gradients_change_no_others);

}  // namespace
}  // namespace tcnca::testing
