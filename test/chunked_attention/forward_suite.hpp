// The forward pass against the reference at edge extents; the same bits for every order of threads; pieces and single
// tokens joined by the state equal one call.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct chunked_attention_forward : ::testing::Test {};
TYPED_TEST_SUITE_P(chunked_attention_forward);

TYPED_TEST_P(chunked_attention_forward, matches_the_reference_at_edges) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t seed = 1;
  for (auto const& e : edge_extents<S>()) {
    SCOPED_TRACE(::testing::Message() << e << ", seed " << seed);
    attention_problem<S> problem(e, seed);
    problem.run_forward(seed);
    problem.expect_forward();
    if (this->HasFailure()) return;
    seed++;
  }
}

TYPED_TEST_P(chunked_attention_forward, matches_the_reference_at_random_extents) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 20);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    attention_extents const e = random_extents<S>(r);
    SCOPED_TRACE(::testing::Message() << e << ", TCNCA_TEST_SEED=" << seed);
    attention_problem<S> problem(e, seed);
    problem.run_forward(seed);
    problem.expect_forward();
    if (this->HasFailure()) return;
  }
}

// Other orders of the fibers, other numbers of threads or groups: the same bits.
TYPED_TEST_P(chunked_attention_forward, repeats_bit_by_bit) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_problem<S> problem({.batch = 2,
                                .heads = 2,
                                .length = 150,
                                .key_dim = 24,
                                .value_dim = 72,
                                .chunk = 67,
                                .state_out = S::causal,
                                .dropout = S::shape.dropout ? 0.3 : 0},
                               7);
  problem.run_forward(0);
  auto const first = problem.bits();
  for (std::uint64_t seed = 1; seed <= environment("TCNCA_TEST_ORDERS", 8); seed++) {
    problem.clear();
    problem.run_forward(seed);
    ASSERT_TRUE(problem.bits() == first) << "seed " << seed;
  }
}

// A sequence cut anywhere and joined by its state, in place or not, equals one call; on the CPU bit for bit, except
// calls of up to four queries.
TYPED_TEST_P(chunked_attention_forward, pieces_equal_one_call) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::causal)) return;
  for (std::uint64_t seed = 1; seed <= 8; seed++) {
    random_bits r{seed};
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    index_t const chunk = between(r, 1, 90), length = between(r, 1, 200);
    attention_problem<S> whole({.batch = 2,
                                .heads = 2,
                                .length = length,
                                .key_dim = 16,
                                .value_dim = 40,
                                .chunk = chunk,
                                .position = between(r, 0, 300),
                                .lengths = seed % 3 == 0,
                                .state_out = true,
                                .dropout = S::shape.dropout ? 0.3 : 0,
                                .heads_inside = seed % 2 == 0},
                               seed);
    auto const args = whole.forward();
    whole.run_forward(seed);
    auto const o = whole.o.bits();
    std::vector<bool> few(std::size_t(whole.o.count()));  // elements from such a call
    whole.o.clear(), whole.lse.clear(), whole.keys_out.clear(), whole.values_out.clear();
    auto keys = whole.template state<typename S::T>(16), values = whole.template state<typename S::T>(40);
    if (whole.keys_in.present()) keys.assign(whole.p.keys_in), values.assign(whole.p.values_in);
    for (index_t done = 0; done < length;) {
      index_t const n =
          seed == 1 && done < 40 ? 1 : std::min<index_t>(length - done, between(r, 0, int(length / 2) + 1));
      bool const in_place = between(r, 0, 1);
      auto part = args;
      part.position = args.position + done;
      part.q = part_of(args.q, done, n), part.k = part_of(args.k, done, n), part.v = part_of(args.v, done, n),
      part.o = part_of(args.o, done, n);
      if (S::softmax) part.lse = part_of(args.lse, done, n);
      auto next_keys = whole.template state<typename S::T>(16), next_values = whole.template state<typename S::T>(40);
      part.keys_in = keys.view(), part.values_in = values.view();
      part.keys_out = in_place ? keys.view() : next_keys.view(),
      part.values_out = in_place ? values.view() : next_values.view();
      attention_problem<S>::run_forward(part, seed + std::uint64_t(done));
      if (!in_place) std::swap(keys, next_keys), std::swap(values, next_values);
      for (index_t i = 0; i < whole.o.count(); i++) {
        index_t const at = i / 40 % length;
        if (n <= 4 && done <= at && at < done + n) few[std::size_t(i)] = true;
      }
      done += n;
    }
    // Slots after the last key may hold older keys.
    auto const keep = [&](auto& to, auto const& from) {
      index_t const dim = from.view().extent[3];
      for (index_t i = 0; i < from.count(); i++)
        if (i / dim % chunk < whole.p.filled_after()) *to.at(i) = *from.at(i);
    };
    keep(whole.keys_out, keys), keep(whole.values_out, values);
    whole.expect_forward();
    if (std::is_same_v<typename S::backend, cpu_backend> && length > 4)
      for (index_t i = 0; i < whole.o.count(); i++) {
        ASSERT_TRUE(few[std::size_t(i)] ||
                    std::memcmp(whole.o.at(i), &o[std::size_t(i) * sizeof(typename S::T)], sizeof(typename S::T)) == 0)
            << i;
      }
    if (this->HasFailure()) return;
  }
}

TYPED_TEST_P(chunked_attention_forward, single_tokens_in_place_equal_one_call) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::causal)) return;
  for (index_t const chunk : {1, 7, 60}) {
    SCOPED_TRACE(::testing::Message() << "chunk " << chunk);
    index_t const length = chunk + chunk / 2 + 3;
    attention_problem<S> whole({.batch = 2,
                                .heads = 3,
                                .length = length,
                                .key_dim = 24,
                                .value_dim = 48,
                                .chunk = chunk,
                                .position = 11 * chunk + chunk / 3,
                                .dropout = S::shape.dropout ? 0.3 : 0},
                               3);
    auto const args = whole.forward();
    auto keys = whole.template state<typename S::T>(24), values = whole.template state<typename S::T>(48);
    if (whole.keys_in.present()) keys.assign(whole.p.keys_in), values.assign(whole.p.values_in);
    for (index_t t = 0; t < length; t++) {
      auto token = args;
      token.position += t;
      token.q = part_of(args.q, t, 1), token.k = part_of(args.k, t, 1), token.v = part_of(args.v, t, 1),
      token.o = part_of(args.o, t, 1);
      if (S::softmax) token.lse = part_of(args.lse, t, 1);
      token.keys_in = token.keys_out = keys.view(), token.values_in = token.values_out = values.view();
      attention_problem<S>::run_forward(token, std::uint64_t(t));
    }
    whole.expect_forward();
    if (this->HasFailure()) return;
  }
}

// A stride of 0 broadcasts an input: the keys and values of one head for all heads, one sequence for the batch.
TYPED_TEST_P(chunked_attention_forward, broadcasts_inputs) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_problem<S> many({.batch = 2,
                             .heads = 3,
                             .length = 40,
                             .key_dim = 16,
                             .value_dim = 24,
                             .chunk = 16,
                             .position = S::causal ? 5 : 0,
                             .dropout = S::shape.dropout ? 0.3 : 0},
                            3);
  auto& p = many.p;
  auto args = many.forward();
  auto const repeat = [](auto& view, std::vector<double>& values, int axis) {  // the first index of an axis
    view.stride[axis] = 0;
    index_t const inner =
        axis == 0 ? view.extent[1] * view.extent[2] * view.extent[3] : view.extent[2] * view.extent[3];
    for (index_t i = 0; i < index_t(values.size()); i++)
      values[std::size_t(i)] = values[std::size_t(
          axis == 0 ? i % inner : i / (inner * view.extent[1]) * (inner * view.extent[1]) + i % inner)];
  };
  repeat(args.q, p.q, 0), repeat(args.k, p.k, 1), repeat(args.v, p.v, 1), repeat(args.v, p.v, 0);
  if (args.keys_in.present()) repeat(args.keys_in, p.keys_in, 1), repeat(args.values_in, p.values_in, 0);
  tensor<index_t, 1> const all({1}, {0});
  *all.at(0) = 33;
  args.lengths = {all.view().data, {2}, {0}};
  p.lengths.assign(2, 33);
  attention_problem<S>::run_forward(args, 1);
  use_arithmetic_of<typename S::T>();
  auto const exact = reference::attention::forward<reference::attention::bounded>(many.what, p);
  EXPECT_TRUE(many.matches(many.o, exact.o));
}

// lse is optional, and no bit of o depends on it.
TYPED_TEST_P(chunked_attention_forward, lse_is_optional) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_problem<S> problem({.batch = 1,
                                .heads = 2,
                                .length = 70,
                                .key_dim = 16,
                                .value_dim = 24,
                                .chunk = 33,
                                .dropout = S::shape.dropout ? 0.5 : 0},
                               5);
  problem.run_forward(1);
  auto const o = problem.o.bits();
  problem.o.clear();
  auto args = problem.forward();
  args.lse = {};
  problem.run_forward(args, 1);
  EXPECT_TRUE(problem.o.bits() == o);
}

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_forward, matches_the_reference_at_edges,
                            matches_the_reference_at_random_extents, repeats_bit_by_bit, pieces_equal_one_call,
                            single_tokens_in_place_equal_one_call, broadcasts_inputs, lse_is_optional);

}  // namespace
}  // namespace tcnca::testing
