// The reference judges; this judges the reference: its backward pass is the slope of its forward pass, for stacks of all kinds.
#include "reference/conv_stack.hpp"

#include <gtest/gtest.h>

#include "support/numbers.hpp"

namespace tcnca::testing {
namespace {

using namespace reference;

/// <u, results>, and how far rounding may move it.
struct weighted {
  double value = 0, error = 0;
  void add(std::vector<double> const& u, field const& f) {
    for (std::size_t i = 0; i < u.size(); i++) {
      value += u[i] * f.value[i];
      error += std::abs(u[i]) * (f.error[i] + double(u.size()) * 0x1p-53 * std::abs(f.value[i]));
    }
  }
};
weighted result(stack const& s, problem const& p) {
  auto const r = forward(s, p, {.accumulate = 0x1p-53});
  weighted w;
  w.add(p.grad_y, r.y), w.add(p.grad_state_out, r.state_out);
  return w;
}

TEST(reference, backward_is_the_slope_of_forward) {
  for (std::uint64_t seed = 1; seed <= 300; seed++) {
    random_bits r{seed};
    stack s;
    s.dir = static_cast<reference::direction>(between(r, 0, 2));
    s.taps = s.dir == reference::direction::symmetric ? 2 * between(r, 0, 2) + 1 : between(r, 1, 5);
    int const layers = between(r, 1, 4);
    for (int l = 0; l < layers; l++) s.dilation.push_back(between(r, 1, 4));
    s.span = between(r, 0, 1) ? 0 : layers % 2 == 0 && between(r, 0, 1) ? layers / 2 : layers;
    s.act = static_cast<reference::activation>(between(r, 2, 5));  // ReLU has no slope at its kink
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

    // One coordinate of each input at a time.
    auto const expect = [&](std::vector<double>& v, field const& grad, char const* name) {
      ASSERT_EQ(grad.value.size(), v.size()) << name;
      for (int i = 0; i < 4 && !v.empty(); i++) {
        std::size_t const k = std::size_t(r.below(int(v.size())));
        double const x = v[k], h = 1e-4;
        auto const slope = [&](double step) {
          v[k] = x + step;
          double const up = result(s, p).value;
          v[k] = x - step;
          double const down = result(s, p).value;
          v[k] = x;
          return (up - down) / (2 * step);
        };
        double const d = slope(h), d2 = slope(2 * h), noise = result(s, p).error / h;
        ASSERT_NEAR(d, grad.value[k], std::abs(d2 - d) + noise) << name << ", seed " << seed;
      }
    };
    expect(p.x, g.grad_x, "x"), expect(p.weight, g.grad_weight, "weight"), expect(p.bias, g.grad_bias, "bias"),
        expect(p.omega, g.grad_omega, "omega");
    expect(p.state_in, g.grad_state_in, "state_in");
    if (::testing::Test::HasFatalFailure()) return;
  }
}

// The activations' slopes, and the bounds on slope and curvature that carry errors through them.
TEST(reference, slopes_are_the_activations_own) {
  for (auto const a : {reference::activation::silu, reference::activation::gelu_erf, reference::activation::gelu_tanh,
                       reference::activation::tanh})
    for (double x = -8; x <= 8; x += 1.0 / 64) {
      double const h = 1e-5;
      auto const value = [&](double at) { return reference::detail::value(a, at); };
      double const d = (value(x + h) - value(x - h)) / (2 * h), d2 = (value(x + 2 * h) - value(x - 2 * h)) / (4 * h);
      ASSERT_NEAR(d, reference::detail::slope(a, x), std::abs(d2 - d) + 1e-15 * (1 + std::abs(x)) / h) << x;
      ASSERT_LE(std::abs(reference::detail::slope(a, x)), reference::detail::steepest(a));
      double const curve = (reference::detail::slope(a, x + h) - reference::detail::slope(a, x - h)) / (2 * h);
      ASSERT_LE(std::abs(curve), reference::detail::most_curved(a) * (1 + 1e-9)) << x;
    }
}

}  // namespace
}  // namespace tcnca::testing
