// The exponential moving average, and its reference, against vectors that JAX computed.
#include "support/golden.hpp"
#include "problem.hpp"

namespace tcnca::testing {
namespace {

struct causal {
  static constexpr char const* name = "causal";
  static constexpr ema_shape shape{.states = 4};
};
struct causal_state {
  static constexpr char const* name = "causal_state";
  static constexpr ema_shape shape{.states = 16};
};
struct bidirectional {
  static constexpr char const* name = "bidirectional";
  static constexpr ema_shape shape{.states = 8, .dir = direction::bidirectional};
};
struct plain {
  static constexpr char const* name = "plain";
  static constexpr ema_shape shape{.states = 4, .skip = false};
};

golden_case const* find(std::string const& name) {
  static std::vector<golden_case> const all = read_golden("ema.txt");
  for (auto const& c : all)
    if (c.name == name) return &c;
  return nullptr;
}

template <class S>
struct ema_golden : ::testing::Test {};
using types = subjects<ema_case<double, causal>, ema_case<float, causal_state>, ema_case<double, bidirectional>,
                       ema_case<bf16, bidirectional>, ema_case<fp16, plain>>;
TYPED_TEST_SUITE(ema_golden, types, subject_name);

TYPED_TEST(ema_golden, agrees_with_jax) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::string const name = S::name();
  golden_case const* const g = find(name.substr(name.find('_', name.find('_') + 1) + 1));
  ASSERT_TRUE(g) << "no golden case for " << name;
  auto const& extent = g->tensors.at("x").extent;
  ema_problem<S> problem({.batch = extent[0],
                          .channels = extent[1],
                          .length = extent[2],
                          .state_in = g->has("state_in"),
                          .state_out = g->has("state_out")},
                         1);
  auto const give = [&](char const* what, auto& t, std::vector<double>& values) {
    if (t.present()) t.assign(values = g->values(what));
  };
  auto& p = problem.p;
  give("x", problem.x, p.x), give("delta", problem.delta, p.delta), give("alpha", problem.alpha, p.alpha),
      give("beta", problem.beta, p.beta);
  give("gamma", problem.gamma, p.gamma), give("omega", problem.omega, p.omega),
      give("grad_y", problem.grad_y, p.grad_y);
  give("state_in", problem.state_in, p.state_in), give("grad_state_out", problem.grad_state_out, p.grad_state_out);
  problem.run_forward(1);
  problem.run_backward(1);
  // The reference's bounds are the operation's; the reference itself must be JAX's numbers, to what an FFT in fp64
  // gives.
  problem.expect_forward();
  problem.expect_backward();
  auto const expect = [&](char const* what, std::vector<double> const& ours) {
    if (!g->has(what)) return;
    auto const& theirs = g->values(what);
    ASSERT_EQ(theirs.size(), ours.size()) << what;
    double largest = 1;
    for (double v : theirs) largest = std::max(largest, std::abs(v));
    for (std::size_t i = 0; i < ours.size(); i++) ASSERT_NEAR(ours[i], theirs[i], 1e-13 * largest) << what << " " << i;
  };
  auto const f = reference::ema::forward<double>(problem.what, p);
  auto const b = reference::ema::backward<double>(problem.what, p);
  expect("y", f.y), expect("state_out", f.state_out), expect("grad_x", b.x), expect("grad_delta", b.delta),
      expect("grad_alpha", b.alpha);
  expect("grad_beta", b.beta), expect("grad_gamma", b.gamma), expect("grad_omega", b.omega),
      expect("grad_state_in", b.state_in);
  expect("kernel", reference::ema::kernel<double>(problem.what, p));
}

}  // namespace
}  // namespace tcnca::testing
