// The backward pass of causal stacks in fp32, channels first.
#include "vector_backward_suite.hpp"
#include "vector_cases.hpp"

namespace tcnca::testing {
namespace {

vector_checks backward_cases() {
  return joined({
      backward_checks("k4_f4", both_of<float, shapes::k4_f4>()),
      backward_checks("k8_f8_relu", both_of<float, shapes::k8_f8_relu>()),
      backward_checks("k17_f16_bias", both_of<float, shapes::k17_f16_bias>()),
      backward_checks("k2_f2_silu", both_of<float, shapes::k2_f2_silu>()),
      backward_checks("k4_one_level", both_of<float, shapes::k4_one_level>()),
      backward_checks("k5_f1_blocks", both_of<float, shapes::k5_f1_blocks>()),
      backward_checks("k1_tanh", both_of<float, shapes::k1_tanh>()),
      backward_checks("list_any", both_of<float, shapes::list_any>()),
      backward_checks("list_129", both_of<float, shapes::list_129>()),
      backward_checks("list_multiples", both_of<float, shapes::list_multiples>()),
      backward_checks("list_near", both_of<float, shapes::list_near>()),
      backward_checks("list_long", both_of<float, shapes::list_long>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_backward, ::testing::ValuesIn(backward_cases()), check_name);

}  // namespace
}  // namespace tcnca::testing
