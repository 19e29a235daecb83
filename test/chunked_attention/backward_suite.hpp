// The backward pass against the reference at edge extents; the same bits for every order of threads; calls joined by
// the state equal one call.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct chunked_attention_backward : ::testing::Test {};
TYPED_TEST_SUITE_P(chunked_attention_backward);

TYPED_TEST_P(chunked_attention_backward, matches_the_reference_at_edges) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t seed = 1;
  for (auto const& e : edge_extents<S>()) {
    SCOPED_TRACE(::testing::Message() << e << ", seed " << seed);
    attention_problem<S> problem(e, seed);
    if (S::softmax) problem.run_forward(seed);
    problem.run_backward(seed);
    problem.expect_backward();
    if (this->HasFailure()) return;
    seed++;
  }
}

TYPED_TEST_P(chunked_attention_backward, matches_the_reference_at_random_extents) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 20);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    attention_extents const e = random_extents<S>(r);
    SCOPED_TRACE(::testing::Message() << e << ", TCNCA_TEST_SEED=" << seed);
    attention_problem<S> problem(e, seed);
    if (S::softmax) problem.run_forward(seed);
    problem.run_backward(seed);
    problem.expect_backward();
    if (this->HasFailure()) return;
  }
}

// Other orders of the fibers, other numbers of threads or groups: the same bits.
TYPED_TEST_P(chunked_attention_backward, repeats_bit_by_bit) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_problem<S> problem({.batch = 2,
                                .heads = 2,
                                .length = 150,
                                .key_dim = 24,
                                .value_dim = 72,
                                .chunk = 67,
                                .position = S::causal ? 40 : 0,
                                .state_out = S::causal,
                                .dropout = S::shape.dropout ? 0.3 : 0},
                               7);
  problem.run_forward(0);
  problem.run_backward(0);
  auto const first = problem.bits();
  for (std::uint64_t seed = 1; seed <= environment("TCNCA_TEST_ORDERS", 8); seed++) {
    problem.clear();
    problem.run_forward(0);
    problem.run_backward(seed);
    ASSERT_TRUE(problem.bits() == first) << "seed " << seed;
  }
}

// The gradients of two calls joined by the state equal those of one call: the gradient of the second's initial state is
// that of the first's final state.
TYPED_TEST_P(chunked_attention_backward, pieces_equal_one_call) {
  using S = TypeParam;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::causal)) return;
  for (std::uint64_t seed = 1; seed <= 8; seed++) {
    random_bits r{seed};
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    index_t const chunk = between(r, 1, 60), length = between(r, 0, 130), cut = between(r, 0, int(length)),
                  position = between(r, 0, 99);
    attention_problem<S> whole({.batch = 2,
                                .heads = 2,
                                .length = length,
                                .key_dim = 16,
                                .value_dim = 40,
                                .chunk = chunk,
                                .position = position,
                                .lengths = seed % 3 == 0,
                                .state_out = true,
                                .dropout = S::shape.dropout ? 0.3 : 0},
                               seed);
    whole.run_forward(1);
    auto keys = whole.template state<typename S::T>(16), values = whole.template state<typename S::T>(40);
    auto first_part = whole.forward();
    auto const part_inputs = [&](auto& a, index_t begin, index_t n) {
      a.position = position + begin;
      a.q = part_of(a.q, begin, n), a.k = part_of(a.k, begin, n), a.v = part_of(a.v, begin, n);
      if (a.o.present()) a.o = part_of(a.o, begin, n);
      if (S::softmax) a.lse = part_of(a.lse, begin, n);
    };
    part_inputs(first_part, 0, cut);
    first_part.keys_out = keys.view(), first_part.values_out = values.view();
    attention_problem<S>::run_forward(first_part,
                                      1);  // the state at the cut; o is written with the numbers that it has

    auto first = whole.backward(), second = whole.backward();
    auto const part = [&](auto& a, index_t begin, index_t n) {
      part_inputs(a, begin, n);
      a.grad_o = part_of(a.grad_o, begin, n);
      a.grad_q = part_of(a.grad_q, begin, n), a.grad_k = part_of(a.grad_k, begin, n),
      a.grad_v = part_of(a.grad_v, begin, n);
    };
    part(first, 0, cut), part(second, cut, length - cut);
    auto of_keys = whole.template state<A>(16), of_values = whole.template state<A>(40);
    second.keys_in = keys.view(), second.values_in = values.view();
    second.grad_keys_in = of_keys.view(), second.grad_values_in = of_values.view();
    tensor<A, 2> other_bias;
    if (S::shape.bias) other_bias = tensor<A, 2>({2, 2 * chunk - 1}, {0, 1}), second.grad_bias = other_bias.view();
    attention_problem<S>::run_backward(second, 2);
    first.grad_keys_out = of_keys.view(), first.grad_values_out = of_values.view();
    attention_problem<S>::run_backward(first, 3);
    for (index_t i = 0; i < other_bias.count(); i++) *whole.grad_bias.at(i) += *other_bias.at(i);
    whole.expect_backward();
    if (this->HasFailure()) return;
  }
}

// A stride of 0 broadcasts an input; each element of the broadcast has its own gradient.
TYPED_TEST_P(chunked_attention_backward, broadcasts_inputs) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_problem<S> many({.batch = 2,
                             .heads = 3,
                             .length = 40,
                             .key_dim = 16,
                             .value_dim = 24,
                             .chunk = 16,
                             .dropout = S::shape.dropout ? 0.3 : 0},
                            3);
  auto& p = many.p;
  auto args = many.forward();
  auto const repeat = [](std::vector<double>& values, index_t inner) {
    for (std::size_t i = 0; i < values.size(); i++) values[i] = values[i % std::size_t(inner)];
  };
  repeat(p.k, 40 * 16), repeat(p.v, 40 * 24), repeat(p.grad_o, 24);
  for (int axis : {0, 1}) args.k.stride[axis] = args.v.stride[axis] = 0;
  attention_problem<S>::run_forward(args, 1);
  auto back = many.backward();
  back.k = args.k, back.v = args.v;
  for (int axis : {0, 1, 2}) back.grad_o.stride[axis] = 0;  // one row for all
  attention_problem<S>::run_backward(back, 1);
  use_arithmetic_of<typename S::T>();
  auto const exact = reference::attention::backward<reference::attention::bounded>(many.what, p);
  EXPECT_TRUE(many.matches(many.grad_q, exact.q));
  EXPECT_TRUE(many.matches(many.grad_k, exact.k));
  EXPECT_TRUE(many.matches(many.grad_v, exact.v));
}

// Absent gradients of the final state are zeros; every gradient that backward computes is optional.
TYPED_TEST_P(chunked_attention_backward, gradients_are_optional) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_problem<S> problem({.batch = 2,
                                .heads = 2,
                                .length = 70,
                                .key_dim = 16,
                                .value_dim = 24,
                                .chunk = 60,
                                .position = S::causal ? 13 : 0,
                                .state_out = S::causal,
                                .dropout = S::shape.dropout ? 0.3 : 0},
                               3);
  problem.run_forward(1);
  for (auto* t : {&problem.p.grad_keys_out, &problem.p.grad_values_out}) t->assign(t->size(), 0);
  problem.grad_keys_out.assign(problem.p.grad_keys_out), problem.grad_values_out.assign(problem.p.grad_values_out);
  problem.run_backward(1);
  problem.expect_backward();
  auto const all = problem.bits();
  auto args = problem.backward();
  args.grad_keys_out = {}, args.grad_values_out = {};
  for (auto* t : {&problem.grad_q, &problem.grad_k, &problem.grad_v}) t->clear();
  problem.grad_bias.clear(), problem.grad_keys_in.clear(), problem.grad_values_in.clear();
  problem.run_backward(args, 1);
  EXPECT_TRUE(problem.bits() == all);
  problem.expect_optional_gradients(args, problem.grad_keys_in, problem.grad_values_in);
}

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_backward, matches_the_reference_at_edges,
                            matches_the_reference_at_random_extents, repeats_bit_by_bit, pieces_equal_one_call,
                            broadcasts_inputs, gradients_are_optional);

}  // namespace
}  // namespace tcnca::testing
