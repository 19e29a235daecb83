// Tests of the reference itself: against vectors that JAX computed, its backward pass as the derivative of its forward
// pass, its generator of random numbers, and its bounds.
#include "reference/chunked_attention.hpp"

#include <gtest/gtest.h>

#include "support/compare.hpp"
#include "support/golden.hpp"
#include "support/gradient.hpp"

namespace tcnca::testing {
namespace {

using namespace reference::attention;

TEST(chunked_attention_reference, philox_gives_the_published_numbers) {
  using words = std::array<std::uint32_t, 4>;
  EXPECT_EQ(reference::philox({0, 0, 0, 0}, {0, 0}), (words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(reference::philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(reference::philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(chunked_attention_reference, agrees_with_jax) {
  auto const golden = read_golden("chunked_attention.txt");
  ASSERT_FALSE(golden.empty()) << "test/golden/chunked_attention.txt was not found";
  for (golden_case const& g : golden) {
    SCOPED_TRACE(g.name);
    auto const& q = g.tensors.at("q").extent;
    shape const s{static_cast<function>(g.option("function")), g.option("causal") != 0, g.option("bias") != 0};
    problem p;
    p.batch = q[0], p.heads = q[1], p.length = q[2], p.key_dim = q[3], p.value_dim = g.tensors.at("v").extent[3];
    p.chunk = g.option("chunk"), p.position = g.option("position");
    p.q = g.values("q"), p.k = g.values("k"), p.v = g.values("v"), p.bias = g.values_or_none("bias"),
    p.grad_o = g.values("grad_o");
    p.keys_in = g.values_or_none("keys_in"), p.values_in = g.values_or_none("values_in");
    p.grad_keys_out = g.values_or_none("grad_keys_out"), p.grad_values_out = g.values_or_none("grad_values_out");
    for (double const n : g.values_or_none("lengths")) p.lengths.push_back(integer(n));
    auto const expect = [&](char const* name, std::vector<double> const& ours, bool state = false) {
      if (!g.has(name)) return;
      auto const& theirs = g.values(name);
      ASSERT_EQ(ours.size(), theirs.size()) << name;
      for (std::size_t i = 0; i < ours.size(); i++) {
        if (!(state && (std::isnan(ours[i]) || theirs[i] == 0))) {  // slots that are left alone
          ASSERT_NEAR(ours[i], theirs[i], 1e-14 * (1 + std::abs(theirs[i]))) << name << " " << i;
        }
      }
    };
    auto const f = forward<double>(s, p);
    expect("o", f.o), expect("lse", f.lse), expect("keys_out", keys_out(p), true),
        expect("values_out", values_out(p), true);
    auto const b = backward<double>(s, p);
    expect("grad_q", b.q), expect("grad_k", b.k), expect("grad_v", b.v), expect("grad_bias", b.bias);
    expect("grad_keys_in", b.keys_in), expect("grad_values_in", b.values_in);
    if (!g.has("a")) continue;
    auto const &a1 = g.values("a"), &b1 = g.values("b");
    expect("bias", rotary<double>(p.heads, p.key_dim, p.chunk, a1, b1));
    auto const r = rotary_backward<double>(p.heads, p.key_dim, p.chunk, a1, b1, b.bias);
    expect("grad_a", r.a), expect("grad_b", r.b);
  }
}

template <class N>
reference::sum<N> loss(shape const& s, problem const& p) {
  auto const r = forward<N>(s, p);
  reference::sum<N> all;
  auto const add_state = [&](std::vector<double> u, std::vector<double> const& v) {
    for (std::size_t i = 0; i < u.size(); i++)
      if (std::isnan(v[i])) u[i] = NAN;  // a slot that is not written
    add_loss(all, u, v);
  };
  add_loss(all, p.grad_o, r.o), add_state(p.grad_keys_out, keys_out(p)), add_state(p.grad_values_out, values_out(p));
  return all;
}

TEST(chunked_attention_reference, backward_is_the_derivative_of_forward) {
  use_arithmetic_of<double>();
  for (std::uint64_t seed = 1; seed <= 200; seed++) {
    random_bits r{seed};
    shape s;
    s.f = static_cast<function>(between(r, 0, 2)), s.causal = between(r, 0, 1), s.bias = between(r, 0, 1),
    s.dropout = between(r, 0, 1);
    problem p;
    p.batch = between(r, 1, 2), p.heads = between(r, 1, 2), p.length = between(r, 1, 11), p.chunk = between(r, 1, 5);
    p.key_dim = between(r, 1, 4), p.value_dim = between(r, 1, 4);
    p.position = s.causal ? between(r, 0, 11) : between(r, 0, 2) * p.chunk;
    if (between(r, 0, 1)) p.scale = uniform(r);
    if (s.dropout) p.dropout = 0.4, p.seed = r(), p.offset = r();
    auto const fill = [&](std::vector<double>& v, integer n) {
      v.resize(std::size_t(n));
      for (double& e : v) e = 2 * uniform(r);
    };
    integer const state = p.batch * p.heads * p.chunk;
    fill(p.q, p.rows() * p.key_dim), fill(p.k, p.rows() * p.key_dim), fill(p.v, p.rows() * p.value_dim),
        fill(p.grad_o, p.rows() * p.value_dim);
    if (s.bias) fill(p.bias, p.heads * (2 * p.chunk - 1));
    if (p.filled_before() > 0) fill(p.keys_in, state * p.key_dim), fill(p.values_in, state * p.value_dim);
    if (s.causal && between(r, 0, 1))
      fill(p.grad_keys_out, state * p.key_dim), fill(p.grad_values_out, state * p.value_dim);
    if (between(r, 0, 1))
      for (integer b = 0; b < p.batch; b++) p.lengths.push_back(between(r, 0, int(p.position + p.length) + 2));
    auto const g = backward<double>(s, p);
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    gradient_check check;
    check.directions = 1, check.coordinates = 3, check.kinks = s.f == function::relu2;
    check.add("q", p.q, g.q), check.add("k", p.k, g.k), check.add("v", p.v, g.v), check.add("bias", p.bias, g.bias);
    check.add("keys_in", p.keys_in, g.keys_in), check.add("values_in", p.values_in, g.values_in);
    check.run([&] { return loss<double>(s, p).get(); }, loss<bounded>(s, p).get().e, seed);
    if (::testing::Test::HasFailure()) return;
  }
}

// fp32 as it is computed naively, and fp64, lie within the bounds of fp32 and of one another.
TEST(chunked_attention_reference, bounds_hold_for_a_naive_computation) {
  use_arithmetic_of<float>();
  double worst = 0;
  for (std::uint64_t seed = 1; seed <= 60; seed++) {
    random_bits r{seed};
    shape s;
    s.f = static_cast<function>(between(r, 0, 2)), s.causal = between(r, 0, 1), s.bias = between(r, 0, 1),
    s.dropout = between(r, 0, 1);
    problem p;
    p.batch = 1, p.heads = 1, p.length = between(r, 1, 70), p.chunk = between(r, 1, 40), p.key_dim = 16,
    p.value_dim = 16;
    if (s.dropout) p.dropout = 0.25, p.seed = seed;
    auto const fill = [&](std::vector<double>& v, integer n, double scale) {
      v.resize(std::size_t(n));
      for (double& e : v) e = double(float(scale * uniform(r)));
    };
    double const spread = seed % 3 == 0 ? 30 : 2;
    fill(p.q, p.rows() * 16, spread), fill(p.k, p.rows() * 16, spread), fill(p.v, p.rows() * 16, 1),
        fill(p.grad_o, p.rows() * 16, 1);
    if (s.bias) fill(p.bias, 2 * p.chunk - 1, 1);
    auto const expect = [&](char const* name, std::vector<float> const& naive, std::vector<double> const& exact,
                            std::vector<bounded> const& bounds) {
      ASSERT_TRUE(naive.size() == exact.size() && exact.size() == bounds.size());
      for (std::size_t i = 0; i < naive.size(); i++) {
        ASSERT_NEAR(exact[i], bounds[i].v, 1e-9 * bounds[i].e + 1e-14 * std::abs(exact[i]))
            << name << " " << i << ", seed " << seed;
        ASSERT_NEAR(double(naive[i]), exact[i], bounds[i].e) << name << " " << i << ", seed " << seed;
        if (bounds[i].e > 0) worst = std::max(worst, std::abs(double(naive[i]) - exact[i]) / bounds[i].e);
      }
    };
    auto const f = forward<float>(s, p);
    auto const fd = forward<double>(s, p);
    auto const fb = forward<bounded>(s, p);
    expect("o", f.o, fd.o, fb.o), expect("lse", f.lse, fd.lse, fb.lse);
    auto const b = backward<float>(s, p);
    auto const bd = backward<double>(s, p);
    auto const bb = backward<bounded>(s, p);
    expect("grad_q", b.q, bd.q, bb.q), expect("grad_k", b.k, bd.k, bb.k), expect("grad_v", b.v, bd.v, bb.v),
        expect("grad_bias", b.bias, bd.bias, bb.bias);
    if (::testing::Test::HasFatalFailure()) return;
  }
  std::printf("the naive computation uses %g of its bounds\n", worst);
  EXPECT_GT(worst, 0.02) << "the bounds say nothing";
}

}  // namespace
}  // namespace tcnca::testing
