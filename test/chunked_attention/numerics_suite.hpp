// Dropout of chunked attention: its mask is the generator's. Precision: at most twice the error of a naive computation.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct chunked_attention_numerics : ::testing::Test {};
TYPED_TEST_SUITE_P(chunked_attention_numerics);

// If the values are unit vectors, o is the weights: zero exactly where the generator drops them.
TYPED_TEST_P(chunked_attention_numerics, dropout_is_the_generators) {
  using S = TypeParam;
  using T = typename S::T;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::shape.dropout)) return;
  index_t const chunk = 64, length = 2 * chunk;
  double dropped = 0, count = 0, expected = 0, variance = 0;
  for (std::uint64_t seed = 1; seed <= 6; seed++) {
    double const dropout = seed == 1 ? 0 : seed == 2 ? 0.999 : 0.15 * double(seed);
    attention_extents e{.batch = 2,
                        .heads = 2,
                        .length = length,
                        .key_dim = 16,
                        .value_dim = chunk,
                        .chunk = chunk,
                        .position = index_t(seed - 1) * chunk};
    e.dropout = dropout, e.spread = 1;
    attention_problem<S> problem(e, seed);
    for (index_t i = 0; i < problem.v.count(); i++)
      *problem.v.at(i) = from_double<T>(problem.p.v[std::size_t(i)] = i % chunk == i / chunk % length % chunk ? 1 : 0);
    problem.run_forward(seed);
    problem.expect_forward();
    for (index_t head = 0; head < 4; head++)
      for (index_t t = 0; t < length; t++)
        for (index_t j = 0; j < (S::causal ? t % chunk + 1 : chunk); j++) {
          bool const keep = reference::attention::kept(problem.p, problem.p.position + t, j, head);
          ASSERT_EQ(to_double(*problem.o.at((head * length + t) * chunk + j)) != 0, keep)
              << "head " << head << ", query " << t << ", key " << j << ", seed " << seed;
          ASSERT_TRUE(keep || dropout > 0);
          dropped += !keep, count++, expected += dropout, variance += dropout * (1 - dropout);
        }
  }
  EXPECT_NEAR(dropped, expected, 5 * std::sqrt(variance)) << "of " << count;
}

// The root mean square and the largest error of each result are at most twice those of a naive computation in the same
// types, plus the errors of exp and erf that the header states, 1e-7 of a weight and 1.5e-7 / 2 of each, as a random
// walk over the keys. On the CPU, 16-bit types have no larger root mean squares than it, which rounds weights and
// derivatives of scores to T: 5% are the difference of two sets of roundings.
TYPED_TEST_P(chunked_attention_numerics, precision_is_that_of_a_naive_computation) {
  using S = TypeParam;
  using T = typename S::T;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  if (has(std::is_same_v<A, double>)) return;  // the reference itself
  namespace r = reference::attention;
  attention_problem<S> problem({.batch = 1,
                                .heads = 2,
                                .length = 256,
                                .key_dim = 64,
                                .value_dim = 64,
                                .chunk = 128,
                                .dropout = S::shape.dropout ? 0.3 : 0},
                               8);
  problem.run_forward(1);
  problem.run_backward(1);
  auto const exact = r::forward<double>(problem.what, problem.p);
  auto const exact_back = r::backward<double>(problem.what, problem.p);
  r::float_element = nullptr;
  if (!std::is_same_v<T, A>) r::float_element = [](double x) { return round_to(x, format_of<T>); };
  auto const naive = r::forward<float>(problem.what, problem.p);
  auto const naive_back = r::backward<float>(problem.what, problem.p);
  r::float_element = nullptr;
  auto const expect = [&](char const* name, auto const& got, std::vector<float> const& by_naive,
                          std::vector<double> const& value) {
    double ours = 0, theirs = 0, our_most = 0, their_most = 0, size = 0;
    for (std::size_t i = 0; i < value.size(); i++) {
      double const a = std::abs(to_double(*got.at(index_t(i))) - value[i]),
                   b = std::abs(double(by_naive[i]) - value[i]);
      ours += a * a, theirs += b * b, our_most = std::max(our_most, a), their_most = std::max(their_most, b),
                                      size += value[i] * value[i];
    }
    double const n = double(value.size()), functions = 1e-7 * std::sqrt(size / n);
    double const most = !std::is_same_v<T, A> && std::is_same_v<typename S::backend, cpu_backend> ? 1.05 : 2;
    EXPECT_LE(std::sqrt(ours / n), most * std::sqrt(theirs / n) + functions) << name;
    EXPECT_LE(our_most, 2 * their_most + 4 * functions) << name;
  };
  expect("o", problem.o, naive.o, exact.o);
  if (S::softmax) expect("lse", problem.log_sums(), naive.lse, exact.lse);
  expect("grad_q", problem.grad_q, naive_back.q, exact_back.q),
      expect("grad_k", problem.grad_k, naive_back.k, exact_back.k);
  expect("grad_v", problem.grad_v, naive_back.v, exact_back.v);
  if (S::shape.bias) expect("grad_bias", problem.grad_bias, naive_back.bias, exact_back.bias);
}

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_numerics, dropout_is_the_generators,
                            precision_is_that_of_a_naive_computation);

}  // namespace
}  // namespace tcnca::testing
