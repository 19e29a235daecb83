// Chunked attention against vectors that JAX computed, in several element types. (reference.cpp compares the reference
// with them.)
#include "support/golden.hpp"
#include "cases.hpp"

namespace tcnca::testing {
namespace {

using reference::attention::bounded;

golden_case const* find(std::string const& name) {
  static std::vector<golden_case> const all = read_golden("chunked_attention.txt");
  for (auto const& c : all)
    if (c.name == name) return &c;
  return nullptr;
}

template <class S>
struct chunked_attention_golden : ::testing::Test {};
using types = subjects_on_one<attention_case<double, softmax_bias>, attention_case<double, softmax_causal_bias>,
                              attention_case<double, laplace_causal_bias>, attention_case<double, relu2_causal>,
                              attention_case<float, laplace_plain>, attention_case<bf16, softmax_causal_bias>>;
TYPED_TEST_SUITE(chunked_attention_golden, types, subject_name);

TYPED_TEST(chunked_attention_golden, agrees_with_jax) {
  using S = TypeParam;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  std::string const name = S::name();
  golden_case const* const g = find(name.substr(name.find('_', name.find('_') + 1) + 1));
  ASSERT_TRUE(g) << "no golden case for " << name;
  auto const& q = g->tensors.at("q").extent;
  attention_extents e{
      .batch = q[0], .heads = q[1], .length = q[2], .key_dim = q[3], .value_dim = g->tensors.at("v").extent[3]};
  e.chunk = g->option("chunk"), e.position = g->option("position"), e.lengths = g->has("lengths"),
  e.state_out = g->has("keys_out");
  attention_problem<S> problem(e, 1);
  auto& p = problem.p;
  for (index_t b = 0; e.lengths && b < e.batch; b++)
    p.lengths[std::size_t(b)] = index_t(g->values("lengths")[std::size_t(b)]);
  auto const give = [&](char const* what, auto& t, std::vector<double>& values) {
    if (t.present()) t.assign(values = g->values(what));
  };
  give("q", problem.q, p.q), give("k", problem.k, p.k), give("v", problem.v, p.v), give("bias", problem.bias, p.bias);
  p.bias = problem.bias.present() ? problem.bias.values() : p.bias;  // a rotary table is not exact in 16 bits
  give("keys_in", problem.keys_in, p.keys_in), give("values_in", problem.values_in, p.values_in);
  give("grad_o", problem.grad_o, p.grad_o), give("grad_keys_out", problem.grad_keys_out, p.grad_keys_out);
  give("grad_values_out", problem.grad_values_out, p.grad_values_out);
  problem.run_forward(1);
  problem.run_backward(1);
  problem.expect_forward();
  problem.expect_backward();

  // The vectors within the bounds; of states, elements other than 0 (empty slots). 1e-14: the precision of JAX in fp64.
  use_arithmetic_of<typename S::T>();
  auto const f = reference::attention::forward<bounded>(problem.what, p);
  auto const b = reference::attention::backward<bounded>(problem.what, p);
  auto const expect = [&](char const* what, auto const& got, std::vector<bounded> const& bounds, bool state = false) {
    if (!g->has(what)) return;
    auto const& theirs = g->values(what);
    ASSERT_EQ(theirs.size(), std::size_t(got.count())) << what;
    for (std::size_t i = 0; i < theirs.size(); i++) {
      double const ours = to_double(*got.at(index_t(i)));
      if (state && theirs[i] == 0) continue;
      ASSERT_NEAR(ours, theirs[i], 2 * (bounds.empty() ? 0 : bounds[i].e) + 1e-14 * (1 + std::abs(theirs[i])))
          << what << " " << i;
    }
  };
  expect("o", problem.o, f.o), expect("lse", problem.log_sums(), f.lse), expect("keys_out", problem.keys_out, {}, true);
  expect("values_out", problem.values_out, {}, true), expect("grad_q", problem.grad_q, b.q),
      expect("grad_k", problem.grad_k, b.k);
  expect("grad_v", problem.grad_v, b.v), expect("grad_bias", problem.grad_bias, b.bias),
      expect("grad_keys_in", problem.grad_keys_in, b.keys_in, true);
  expect("grad_values_in", problem.grad_values_in, b.values_in, true);

  // The rotary table, and from its gradient to those of a and b.
  if (!g->has("a")) return;
  auto const table = [&](char const* what, index_t columns) {
    tensor<A, 2> t({e.heads, columns}, {0, 1});
    if (g->has(what)) t.assign(g->values(what));
    return t;
  };
  auto const a1 = table("a", e.key_dim), b1 = table("b", e.key_dim), bias = table("", 2 * e.chunk - 1),
             a2 = table("", e.key_dim), b2 = table("", e.key_dim);
  typename S::op::rotary_args forward;
  forward.a = a1.view(), forward.b = b1.view(), forward.bias = bias.view(), forward.chunk = e.chunk;
  EXPECT_TRUE(S::op::rotary(S::backend::make(1), forward).ok());
  typename S::op::rotary_backward_args backward;
  backward.a = a1.view(), backward.b = b1.view(), backward.grad_bias = problem.grad_bias.view(),
  backward.grad_a = a2.view(), backward.grad_b = b2.view();
  backward.chunk = e.chunk;
  EXPECT_TRUE(S::op::rotary_backward(S::backend::make(1), backward).ok());
  S::backend::finish();
  double noise = 1e-14;  // error of the table's gradient, times a and b below 2
  for (auto const& x : b.bias) noise += 4 * x.e;
  auto const close = [&](char const* what, tensor<A, 2> const& got) {
    for (std::size_t i = 0; i < g->values(what).size(); i++)
      ASSERT_NEAR(double(*got.at(index_t(i))), g->values(what)[i], noise) << what << " " << i;
  };
  close("bias", bias), close("grad_a", a2), close("grad_b", b2);
}

}  // namespace
}  // namespace tcnca::testing
