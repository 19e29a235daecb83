// The tuning that users get: both passes at the edges of its tiles, and receptive fields far longer than a tile, at short and long lengths.
#include "support/conv_stack_backward_suite.hpp"
#include "support/conv_stack_forward_suite.hpp"

namespace tcnca::testing {
namespace {

template <class T, class Case>
using default_tuning = default_conv_stack_tuning<T, Case::shape>;
template <class T, class Case>
using by_default = pending<T, Case, default_tuning<T, Case>>;

using types = subjects<by_default<float, plain>, by_default<bf16, skip_gelu_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

template <class S>
struct conv_stack_far : ::testing::Test {};
using far_types = subjects<by_default<float, far_132651>, by_default<float, far_last_4096>>;
TYPED_TEST_SUITE(conv_stack_far, far_types, subject_name);

template <class S>
std::vector<extents> far_extents() {
  index const r = S::op::receptive_field;
  return {{.batch = 1, .channels = 1, .length = 1, .position = 77, .state_in = true, .state_out = true},
          {.batch = 2, .channels = 3, .length = 700},
          {.batch = 1, .channels = 3, .length = 5000, .position = 123456, .state_in = true, .state_out = true},
          {.batch = 1, .channels = 1, .length = r + 1001, .state_out = true},
          {.batch = 1, .channels = 1, .length = r - 1, .position = 5, .state_in = true}};
}

TYPED_TEST(conv_stack_far, forward_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (extents const& e : far_extents<S>()) {
    SCOPED_TRACE(::testing::Message() << e);
    conv_stack_problem<S> problem(e, 1);
    problem.run_forward();
    problem.expect_forward();
  }
}

TYPED_TEST(conv_stack_far, backward_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (extents const& e : far_extents<S>()) {
    SCOPED_TRACE(::testing::Message() << e);
    conv_stack_problem<S> problem(e, 2);
    problem.want_gradients();
    problem.run_backward();
    problem.expect_backward();
  }
}

}  // namespace
}  // namespace tcnca::testing
