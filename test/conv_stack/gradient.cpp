// Gradients of stacks against difference quotients of the forward pass, in fp64.
#include "support/gradient.hpp"
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct conv_stack_gradient : ::testing::Test {};
using types = subjects_on_one<small_case<double, plain>, small_case<double, list_silu_level>,
                              small_case<double, skip_gelu_last>, small_case<double, symmetric_last>,
                              small_case<double, bidirectional_skip>, small_case<double, bidirectional_last>>;
TYPED_TEST_SUITE(conv_stack_gradient, types, subject_name);

TYPED_TEST(conv_stack_gradient, is_the_derivative_of_the_forward_pass) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  conv_stack_problem<S> problem({.batch = 2,
                                 .channels = 2,
                                 .length = S::op::receptive_field + 9,
                                 .position = 3,
                                 .state_in = S::causal,
                                 .state_out = S::causal},
                                4);
  problem.want_gradients();
  problem.run_backward();
  auto const loss = [&] {
    problem.run_forward();
    reference::sum<double> all;
    add_loss(all, problem.p.grad_y, problem.y), add_loss(all, problem.p.grad_state_out, problem.state_out);
    return all.get();
  };
  use_arithmetic_of<double>();
  auto const exact = reference::forward(problem.stack, problem.p);
  reference::sum<reference::bounded> rounding;
  add_loss(rounding, problem.p.grad_y, exact.y.numbers());
  add_loss(rounding, problem.p.grad_state_out, exact.state_out.numbers());

  gradient_check check;
  check.add("x", problem.x, problem.grad_x), check.add("weight", problem.weight, problem.grad_weight);
  check.add("bias", problem.bias, problem.grad_bias), check.add("omega", problem.omega, problem.grad_omega);
  check.add("state_in", problem.state_in, problem.grad_state_in);
  check.run(loss, rounding.get().e);
}

}  // namespace
}  // namespace tcnca::testing
