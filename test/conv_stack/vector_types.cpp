// fp64, bf16 and fp16.
#include "vector_backward_suite.hpp"
#include "vector_cases.hpp"
#include "vector_forward_suite.hpp"

namespace tcnca::testing {
namespace {

vector_checks forward_cases() {
  return joined({
      forward_checks("fp64_list_any", forward_of<double, shapes::list_any>()),
      forward_checks("fp64_k8_last", forward_of<double, shapes::last(shapes::k8_f8_relu)>()),
      forward_checks("bf16_k4", forward_of<bf16, shapes::k4_f4>()),
      forward_checks("bf16_list_129_last", forward_of<bf16, shapes::last(shapes::list_129)>()),
      forward_checks("fp16_list_near", forward_of<fp16, shapes::list_near>()),
      forward_checks("fp16_bidirectional_last", forward_of<fp16, shapes::last(shapes::bidirectional_f4)>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_forward, ::testing::ValuesIn(forward_cases()), check_name);

vector_checks backward_cases() {
  return joined({
      backward_checks("fp64_list_129", both_of<double, shapes::list_129>()),
      backward_checks("bf16_k4", both_of<bf16, shapes::k4_f4>()),
      backward_checks("bf16_list_any_last", both_of<bf16, shapes::last(shapes::list_any)>()),
      backward_checks("fp16_symmetric", both_of<fp16, shapes::symmetric_f7>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_backward, ::testing::ValuesIn(backward_cases()), check_name);

}  // namespace
}  // namespace tcnca::testing
