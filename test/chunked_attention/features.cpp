// Options of the shape: ALiBi, a window, grouped heads, a length of each head. Both passes against the reference, and
// the arguments that they need.
#include "cases.hpp"

namespace tcnca::testing {
namespace {

struct all_options {
  static constexpr char const* name = "all";
  static constexpr chunked_attention_shape shape{.causal = true,
                                                 .bias = true,
                                                 .dropout = true,
                                                 .alibi = true,
                                                 .window = true,
                                                 .grouped = true,
                                                 .head_lengths = true};
};
struct on_tensor_cores {  // in both passes
  static constexpr char const* name = "on_tensor_cores";
  static constexpr chunked_attention_shape shape{
      .causal = true, .bias = true, .dropout = true, .alibi = true, .window = true, .head_lengths = true};
};
struct laplace_window {
  static constexpr char const* name = "laplace_window";
  static constexpr chunked_attention_shape shape{
      .function = attention_function::laplace, .causal = true, .window = true, .grouped = true};
};
struct both_sides {
  static constexpr char const* name = "both_sides";
  static constexpr chunked_attention_shape shape{.alibi = true, .grouped = true, .head_lengths = true};
};

template <class S>
attention_extents feature_extents(std::uint64_t seed) {
  random_bits r{seed};
  attention_extents e = random_extents<S>(r);
  e.batch = between(r, 1, 2);
  e.group = S::shape.grouped ? between(r, 1, 3) : 1, e.heads = e.group * between(r, 1, 2);
  if (S::shape.window) e.window = between(r, 0, 2) ? between(r, 1, 40) : between(r, 1, 300);
  if (seed % 5 == 0) e.length = between(r, 1, 4);  // the step agent
  if (seed % 7 == 0)                               // several blocks, and shares of the keys
    e.length = between(r, 300, 500), e.chunk = between(r, 400, 600), e.key_dim = e.value_dim = 16, e.batch = 1;
  if (!S::causal) e.position = e.position / e.chunk * e.chunk;
  return e;
}

template <class S>
struct chunked_attention_features : ::testing::Test {};

using types = all_or_few<subjects<attention_case<float, all_options>, attention_case<float, laplace_window>,
                                  attention_case<bf16, both_sides>, attention_case<bf16, on_tensor_cores>>,
                         subjects<attention_case<float, all_options>, attention_case<bf16, on_tensor_cores>>>;
TYPED_TEST_SUITE(chunked_attention_features, types, subject_name);

TYPED_TEST(chunked_attention_features, match_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 28);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    auto const e = feature_extents<S>(seed);
    SCOPED_TRACE(::testing::Message() << e << ", TCNCA_TEST_SEED=" << seed);
    attention_problem<S> problem(e, seed);
    problem.run_forward(seed);
    problem.expect_forward();
    problem.run_backward(seed);
    problem.expect_backward();
    if (this->HasFailure()) return;
  }
}

// Masked keys that are not finite change nothing.
TYPED_TEST(chunked_attention_features, masked_keys_do_not_propagate) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::shape.window)) return;
  attention_extents const e{.heads = 2,
                            .length = 230,
                            .key_dim = 16,
                            .value_dim = 24,
                            .chunk = 250,
                            .dropout = S::shape.dropout ? 0.3 : 0,
                            .group = S::shape.grouped ? 2 : 1,
                            .window = 37};
  attention_problem<S> problem(e, 3);
  for (std::size_t i = 0; i < problem.p.head_lengths.size(); i++)
    *problem.head_lengths.at(index_t(i)) = problem.p.head_lengths[i] = 1000;
  problem.run_forward(1);
  auto const o = problem.o.values();
  auto const row = [](auto& t, index_t at) { return t.at(at * t.view().extent[3]); };
  *row(problem.k, 100) = from_double<typename S::T>(NAN), *row(problem.v, 100) = from_double<typename S::T>(INFINITY);
  problem.run_forward(1);
  auto const now = problem.o.values();
  for (index_t h = 0; h < 2; h++)
    for (index_t i = 0; i < e.length; i++) {
      if (i >= 100 && i < 137) continue;  // these see it
      std::size_t const at = std::size_t((h * e.length + i) * e.value_dim);
      ASSERT_TRUE(std::equal(o.begin() + at, o.begin() + at + e.value_dim, now.begin() + at)) << "query " << i;
    }
}

// A causal mask aligned at the bottom right: the keys before the queries are the state, a view of the same tensor.
TYPED_TEST(chunked_attention_features, fewer_queries_than_keys) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::causal)) return;
  index_t const keys = 90, queries = 31;
  attention_problem<S> all({.heads = 2,
                            .length = keys,
                            .key_dim = 16,
                            .value_dim = 24,
                            .chunk = keys,
                            .group = S::shape.grouped ? 2 : 1,
                            .window = S::shape.window ? 50 : 0},
                           5);
  auto args = all.forward();
  args.q = part_of(args.q, keys - queries, queries), args.k = part_of(args.k, keys - queries, queries),
  args.v = part_of(args.v, keys - queries, queries), args.o = part_of(args.o, keys - queries, queries);
  if (S::softmax) args.lse = part_of(args.lse, keys - queries, queries);
  args.keys_in = all.k.view(), args.values_in = all.v.view(), args.position = keys - queries;
  all.run_forward(1);
  for (index_t h = 0; h < 2; h++)
    for (index_t i = 0; i < queries * 24; i++) *args.o.at(0, h, i / 24, i % 24) = from_double<typename S::T>(NAN);
  all.run_forward(args, 1);
  use_arithmetic_of<typename S::T>();
  auto const exact = reference::attention::forward<reference::attention::bounded>(all.what, all.p);
  EXPECT_TRUE(all.matches(all.o, exact.o));
}

cpu one_worker(cpu) { return {1}; }
template <int Threads>
fibers<Threads> one_worker(fibers<Threads> e) {
  return {e.seed, 1};
}

// Few queries: their keys are one share, several or many, of which some are empty or begin before a window. Bits do not
// depend on whether the shares are processed by one item or combined from the workspace.
TYPED_TEST(chunked_attention_features, few_queries) {
  using S = TypeParam;
  using op = typename S::op;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::causal)) return;
  constexpr index_t value_dims[] = {16, 24, 136, 520};  // on a GPU one value tile or several
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 12);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    attention_extents e{.length = between(r, 1, 4), .key_dim = 8 * between(r, 2, 9)};
    if (seed % 6 == 1) e.batch = 2, e.key_dim = 256;
    e.value_dim = value_dims[seed % 4], e.chunk = seed % 3 ? between(r, 60, 400) : between(r, 1, 20);
    e.group = S::shape.grouped ? between(r, 1, 5) : 1, e.heads = e.group * between(r, 1, 2);
    e.position = 3 * e.chunk + (between(r, 0, 2) ? between(r, 0, int(e.chunk) - 1) : int(e.chunk) - 1);
    if (seed % 6 == 0)  // many shares on a GPU, several on the CPU
      e.chunk = between(r, 1100, 1200), e.position = 2 * e.chunk - 9, e.heads = e.group = 1;
    if (S::shape.window) e.window = seed % 6 && between(r, 0, 1) ? between(r, 1, 90) : between(r, 300, 1200);
    if (S::shape.dropout) e.dropout = between(r, 0, 1) ? 0.3 : 0;
    e.lengths = between(r, 0, 3) == 0, e.heads_inside = between(r, 0, 1), e.state_out = between(r, 0, 1);
    if (seed % 5 == 0) e.where = {1, 3};  // no row is aligned
    SCOPED_TRACE(::testing::Message() << e << ", TCNCA_TEST_SEED=" << seed);
    attention_problem<S> problem(e, seed);
    for (std::size_t i = 0; i < problem.p.head_lengths.size() && seed % 2; i++)
      *problem.head_lengths.at(index_t(i)) = problem.p.head_lengths[i] = e.position + between(r, 0, 4);
    problem.run_forward(seed);
    problem.expect_forward();
    auto const bits = problem.bits();
    problem.clear();
    auto const executor = S::backend::make(seed + 1);
    std::size_t least = 0;
    if constexpr (requires { one_worker(executor); }) {
      least = op::forward_workspace(one_worker(executor), problem.forward());
    }
    run_with_workspace<typename S::backend>(least,
                                            [&](workspace w) { return op::forward(executor, problem.forward(), w); });
    EXPECT_TRUE(problem.bits() == bits) << "with the least workspace";
    if (this->HasFailure()) return;
  }
}

TYPED_TEST(chunked_attention_features, need_their_arguments) {
  using S = TypeParam;
  using op = typename S::op;
  attention_problem<S> problem(
      {.heads = 6, .length = 3, .chunk = 3, .group = S::shape.grouped ? 2 : 1, .window = S::shape.window ? 2 : 0}, 1);
  auto const refused = [&](char const* name, status_code code, auto change) {
    auto args = problem.backward();
    change(args);
    status const s = op::backward(S::backend::make(1), args, {});
    EXPECT_TRUE(s.code() == code) << describe(s).c_str();
    EXPECT_STREQ(s.argument(), name);
  };
  refused("k", status_code::invalid_extent, [](auto& a) { a.k.extent[1] = 4; });
  refused("v", status_code::invalid_extent, [](auto& a) { a.v.extent[1] = 1; });
  refused("window", S::shape.window ? status_code::invalid_value : status_code::unexpected_argument,
          [](auto& a) { a.window = S::shape.window ? 0 : 1; });
  if (S::shape.alibi) refused("alibi_slopes", status_code::missing_argument, [](auto& a) { a.alibi_slopes = {}; });
  if (S::shape.head_lengths)
    refused("head_lengths", status_code::invalid_extent, [](auto& a) { a.head_lengths.extent[1] = 2; });
}

}  // namespace
}  // namespace tcnca::testing
