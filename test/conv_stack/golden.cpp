// Against vectors that JAX computed: the reference, and the operation in all element types.
#include "support/golden.hpp"
#include "cases.hpp"

namespace tcnca::testing {
namespace {

std::vector<golden_case> const& golden() {
  static std::vector<golden_case> const all = read_golden("conv_stack.txt");
  return all;
}
golden_case const* find(std::string const& name) {
  for (auto const& c : golden())
    if (c.name == name) return &c;
  return nullptr;
}

reference::stack stack_of(golden_case const& g) {
  reference::stack s;
  s.taps = int(g.option("taps"));
  s.dilation.assign(g.options.at("dilations").begin(), g.options.at("dilations").end());
  s.residual_span = int(g.option("span"));
  s.act = static_cast<reference::activation>(g.option("activation"));
  s.bias = g.option("bias") != 0, s.skip = g.option("skip") != 0;
  s.dir = static_cast<reference::direction>(g.option("direction"));
  return s;
}
reference::problem problem_of(golden_case const& g) {
  reference::problem p;
  auto const& extent = g.tensors.at("x").extent;
  p.batch = extent.at(0), p.channels = extent.at(1), p.length = extent.at(2);
  p.x = g.values("x"), p.weight = g.values("weight"), p.bias = g.values_or_none("bias"),
  p.omega = g.values_or_none("omega"), p.grad_y = g.values("grad_y");
  return p;
}

TEST(conv_stack_golden, reference_agrees_with_jax) {
  ASSERT_FALSE(golden().empty()) << "test/golden/conv_stack.txt was not found";
  for (golden_case const& g : golden()) {
    SCOPED_TRACE(g.name);
    // Both compute in fp64, and each is within the bound.
    auto const expect = [&](char const* name, reference::field const& f) {
      if (!g.has(name)) return;
      auto const& v = g.values(name);
      ASSERT_EQ(v.size(), f.value.size());
      for (std::size_t i = 0; i < v.size(); i++)
        ASSERT_LE(std::abs(v[i] - f.value[i]), 2 * f.error[i]) << name << " " << i;
    };
    use_arithmetic_of<double>();
    auto const f = reference::forward(stack_of(g), problem_of(g));
    auto const b = reference::backward(stack_of(g), problem_of(g));
    expect("y", f.y), expect("grad_x", b.grad_x), expect("grad_weight", b.grad_weight),
        expect("grad_bias", b.grad_bias), expect("grad_omega", b.grad_omega);
  }
}

template <class S>
struct conv_stack_golden_on : ::testing::Test {};
using types = subjects_on_one<stack_case<double, plain>, stack_case<fp16, list_silu_level>,
                              stack_case<float, blocks_relu_last>, stack_case<bf16, symmetric_gelu>,
                              stack_case<float, bidirectional_skip>, stack_case<double, bidirectional_last>>;
TYPED_TEST_SUITE(conv_stack_golden_on, types, subject_name);

TYPED_TEST(conv_stack_golden_on, agrees_with_jax) {
  using S = TypeParam;
  using T = typename S::T;
  TCNCA_TEST_NEEDS(S::backend);
  std::string const name = S::name();
  golden_case const* const g = find(name.substr(name.find('_', name.find('_') + 1) + 1));
  ASSERT_TRUE(g) << "no golden case for " << name;
  reference::problem const p = problem_of(*g);
  conv_stack_problem<S> problem({.batch = p.batch, .channels = p.channels, .length = p.length}, 1);
  problem.want_gradients();
  problem.x.assign(p.x), problem.weight.assign(p.weight), problem.bias.assign(p.bias), problem.omega.assign(p.omega),
      problem.grad_y.assign(p.grad_y);
  problem.run_forward();
  problem.run_backward();

  use_arithmetic_of<T>();
  auto const f = reference::forward(stack_of(*g), p);
  auto const b = reference::backward(stack_of(*g), p);
  // The vectors are fp64 and have the error bound of fp64.
  use_arithmetic_of<double>();
  auto const f64 = reference::forward(stack_of(*g), p);
  auto const b64 = reference::backward(stack_of(*g), p);
  auto const expect = [&](char const* what, auto const& got, reference::field const& ours,
                          reference::field const& theirs) {
    if (!g->has(what)) return;
    std::vector<double> bound = ours.error;
    for (std::size_t i = 0; i < bound.size(); i++) bound[i] += theirs.error[i];
    EXPECT_TRUE(within(got, g->values(what), bound)) << what;
  };
  expect("y", problem.y, f.y, f64.y);
  expect("grad_x", problem.grad_x, b.grad_x, b64.grad_x);
  expect("grad_weight", problem.grad_weight, b.grad_weight, b64.grad_weight);
  expect("grad_bias", problem.grad_bias, b.grad_bias, b64.grad_bias);
  expect("grad_omega", problem.grad_omega, b.grad_omega, b64.grad_omega);
}

}  // namespace
}  // namespace tcnca::testing
