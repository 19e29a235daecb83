// Gradients of the exponential moving average against difference quotients of the forward pass, in fp64.
#include "support/gradient.hpp"
#include "problem.hpp"

namespace tcnca::testing {
namespace {

using reference::ema::bounded;

struct causal {
  static constexpr char const* name = "causal";
  static constexpr ema_shape shape{.states = 4};
};
struct plain {
  static constexpr char const* name = "plain";
  static constexpr ema_shape shape{.states = 4, .skip = false};
};
struct bidirectional {
  static constexpr char const* name = "bidirectional";
  static constexpr ema_shape shape{.states = 8, .dir = direction::bidirectional};
};
struct bidirectional_last {
  static constexpr char const* name = "bidirectional_last";
  static constexpr ema_shape shape{
      .states = 2, .dir = direction::bidirectional, .skip = false, .order = layout::batch_length_channels};
};

template <class S>
struct ema_gradient : ::testing::Test {};

// On fibers with groups of 32 threads, so that the sequence has several tiles.
#if defined(__SANITIZE_THREAD__)
using gradient_backends = std::tuple<fiber_backend<32>>;
#else
using gradient_backends = std::tuple<cpu_backend, fiber_backend<32>>;
#endif
using types = subjects_on<gradient_backends, ema_case<double, causal>, ema_case<double, plain>,
                          ema_case<double, bidirectional>, ema_case<double, bidirectional_last>>;
TYPED_TEST_SUITE(ema_gradient, types, subject_name);

TYPED_TEST(ema_gradient, is_the_derivative_of_the_forward_pass) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  ema_problem<S> problem(
      {.batch = 2, .channels = 2, .length = S::tile + 9, .state_in = S::causal, .state_out = S::causal}, 4);
  problem.run_backward(1);
  auto const loss = [&] {
    problem.run_forward(1);
    reference::sum<double> all;
    add_loss(all, problem.p.grad_y, problem.y), add_loss(all, problem.p.grad_state_out, problem.state_out);
    return all.get();
  };
  use_arithmetic_of<double>();
  auto const exact = reference::ema::forward<bounded>(problem.what, problem.p);
  reference::sum<bounded> rounding;
  add_loss(rounding, problem.p.grad_y, exact.y), add_loss(rounding, problem.p.grad_state_out, exact.state_out);

  gradient_check check;
  check.add("x", problem.x, problem.grad_x), check.add("delta", problem.delta, problem.grad_delta);
  check.add("alpha", problem.alpha, problem.grad_alpha), check.add("beta", problem.beta, problem.grad_beta);
  check.add("gamma", problem.gamma, problem.grad_gamma), check.add("omega", problem.omega, problem.grad_omega);
  check.add("state_in", problem.state_in, problem.grad_state_in);
  check.run(loss, rounding.get().e);
}

}  // namespace
}  // namespace tcnca::testing
