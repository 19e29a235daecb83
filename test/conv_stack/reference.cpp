// Tests of the reference itself, for stacks of all kinds: its backward pass is the derivative of its forward pass.
#include "reference/conv_stack.hpp"

#include <gtest/gtest.h>

#include "support/compare.hpp"
#include "support/gradient.hpp"

namespace tcnca::testing {
namespace {

using namespace reference;

reference::sum<bounded> loss(stack const& s, problem const& p) {
  auto const r = forward(s, p);
  reference::sum<bounded> all;
  add_loss(all, p.grad_y, r.y.numbers()), add_loss(all, p.grad_state_out, r.state_out.numbers());
  return all;
}

TEST(conv_stack_reference, backward_is_the_derivative_of_forward) {
  use_arithmetic_of<double>();
  for (std::uint64_t seed = 1; seed <= 300; seed++) {
    random_bits r{seed};
    stack s;
    s.dir = static_cast<reference::direction>(between(r, 0, 2));
    s.taps = s.dir == reference::direction::symmetric ? 2 * between(r, 0, 2) + 1 : between(r, 1, 5);
    int const layers = between(r, 1, 4);
    for (int l = 0; l < layers; l++) s.dilation.push_back(between(r, 1, 4));
    s.residual_span = between(r, 0, 1) ? 0 : layers % 2 == 0 && between(r, 0, 1) ? layers / 2 : layers;
    s.act = static_cast<reference::activation>(between(r, 2, 5));  // ReLU has no derivative at 0
    if (between(r, 0, 3) == 0) s.act = reference::activation::none;
    s.bias = between(r, 0, 1), s.skip = between(r, 0, 1);
    bool const causal = s.dir == reference::direction::causal, state_in = causal && between(r, 0, 1),
               state_out = causal && between(r, 0, 1);
    problem p;
    p.batch = between(r, 1, 2), p.channels = between(r, 1, 2), p.length = between(r, 0, 20),
    p.position = between(r, 0, 50);
    auto const fill = [&](std::vector<double>& v, integer n) {
      v.resize(std::size_t(n));
      for (double& e : v) e = uniform(r);
    };
    integer const rows = s.directions() * layers, n = p.batch * p.channels * p.length,
                  state = p.batch * p.channels * s.state_length();
    fill(p.x, n), fill(p.weight, rows * s.taps * p.channels), fill(p.grad_y, n);
    if (s.bias) fill(p.bias, rows * p.channels);
    if (s.skip) fill(p.omega, p.channels);
    if (state_in) fill(p.state_in, state);
    if (state_out) fill(p.grad_state_out, state);
    auto const g = backward(s, p);

    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    gradient_check check;
    check.directions = 1, check.coordinates = 3;
    check.add("x", p.x, g.grad_x.value), check.add("weight", p.weight, g.grad_weight.value);
    check.add("bias", p.bias, g.grad_bias.value), check.add("omega", p.omega, g.grad_omega.value);
    check.add("state_in", p.state_in, g.grad_state_in.value);
    check.run([&] { return loss(s, p).v; }, loss(s, p).get().e, seed);
    if (::testing::Test::HasFailure()) return;
  }
}

// The activations' derivatives, and the bounds on derivative and curvature that carry errors through them.
TEST(conv_stack_reference, derivatives_of_activations) {
  for (auto const a : {reference::activation::silu, reference::activation::gelu_erf, reference::activation::gelu_tanh,
                       reference::activation::tanh})
    for (double x = -8; x <= 8; x += 1.0 / 64) {
      double const h = 1e-5;
      auto const value = [&](double at) { return reference::detail::value(a, at); };
      double const d = (value(x + h) - value(x - h)) / (2 * h), d2 = (value(x + 2 * h) - value(x - 2 * h)) / (4 * h);
      ASSERT_NEAR(d, reference::detail::derivative(a, x), std::abs(d2 - d) + 1e-15 * (1 + std::abs(x)) / h) << x;
      ASSERT_LE(std::abs(reference::detail::derivative(a, x)), reference::detail::largest_derivative(a));
      double const curve =
          (reference::detail::derivative(a, x + h) - reference::detail::derivative(a, x - h)) / (2 * h);
      ASSERT_LE(std::abs(curve), reference::detail::largest_curvature(a) * (1 + 1e-9)) << x;
    }
}

}  // namespace
}  // namespace tcnca::testing
