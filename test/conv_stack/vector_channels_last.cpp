// Causal stacks with channels as lanes.
#include "vector_backward_suite.hpp"
#include "vector_cases.hpp"
#include "vector_forward_suite.hpp"

namespace tcnca::testing {
namespace {

vector_checks forward_cases() {
  return joined({
      forward_checks("k4_f4", forward_of<float, shapes::last(shapes::k4_f4)>()),
      forward_checks("k8_f8_relu", forward_of<float, shapes::last(shapes::k8_f8_relu)>()),
      forward_checks("k17_f16_bias", forward_of<float, shapes::last(shapes::k17_f16_bias)>()),
      forward_checks("k5_f1_blocks", forward_of<float, shapes::last(shapes::k5_f1_blocks)>()),
      forward_checks("k1_tanh", forward_of<float, shapes::last(shapes::k1_tanh)>()),
      forward_checks("list_any", forward_of<float, shapes::last(shapes::list_any)>()),
      forward_checks("list_near", forward_of<float, shapes::last(shapes::list_near)>()),
      forward_checks("list_long", forward_of<float, shapes::last(shapes::list_long)>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_forward, ::testing::ValuesIn(forward_cases()), check_name);

vector_checks backward_cases() {
  return joined({
      backward_checks("k4_f4", both_of<float, shapes::last(shapes::k4_f4)>()),
      backward_checks("k5_f1_blocks", both_of<float, shapes::last(shapes::k5_f1_blocks)>()),
      backward_checks("list_any", both_of<float, shapes::last(shapes::list_any)>()),
      backward_checks("list_long", both_of<float, shapes::last(shapes::list_long)>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_backward, ::testing::ValuesIn(backward_cases()), check_name);

}  // namespace
}  // namespace tcnca::testing
