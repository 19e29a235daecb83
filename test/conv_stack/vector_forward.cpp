// The forward pass of causal stacks in fp32, channels first.
#include "vector_cases.hpp"
#include "vector_forward_suite.hpp"

namespace tcnca::testing {
namespace {

vector_checks forward_cases() {
  return joined({
      forward_checks("k4_f4", forward_of<float, shapes::k4_f4>()),
      forward_checks("k8_f8_relu", forward_of<float, shapes::k8_f8_relu>()),
      forward_checks("k17_f16_bias", forward_of<float, shapes::k17_f16_bias>()),
      forward_checks("k2_f2_silu", forward_of<float, shapes::k2_f2_silu>()),
      forward_checks("k4_one_level", forward_of<float, shapes::k4_one_level>()),
      forward_checks("k4_f16_beyond", forward_of<float, shapes::k4_f16_beyond>()),
      forward_checks("k51_f7", forward_of<float, shapes::k51_f7>()),
      forward_checks("k3_f3_block", forward_of<float, shapes::k3_f3_block>()),
      forward_checks("k5_f1_blocks", forward_of<float, shapes::k5_f1_blocks>()),
      forward_checks("k1_tanh", forward_of<float, shapes::k1_tanh>()),
      forward_checks("list_any", forward_of<float, shapes::list_any>()),
      forward_checks("list_100", forward_of<float, shapes::list_100>()),
      forward_checks("list_129", forward_of<float, shapes::list_129>()),
      forward_checks("list_multiples", forward_of<float, shapes::list_multiples>()),
      forward_checks("list_near", forward_of<float, shapes::list_near>()),
      forward_checks("list_long", forward_of<float, shapes::list_long>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_forward, ::testing::ValuesIn(forward_cases()), check_name);

}  // namespace
}  // namespace tcnca::testing
