// Stacks that look ahead, in both layouts.
#include "vector_backward_suite.hpp"
#include "vector_cases.hpp"
#include "vector_forward_suite.hpp"

namespace tcnca::testing {
namespace {

vector_checks forward_cases() {
  return joined({
      forward_checks("symmetric_f7", forward_of<float, shapes::symmetric_f7>()),
      forward_checks("symmetric_list", forward_of<float, shapes::symmetric_list>()),
      forward_checks("symmetric_k17", forward_of<float, shapes::symmetric_k17>()),
      forward_checks("bidirectional_f4", forward_of<float, shapes::bidirectional_f4>()),
      forward_checks("bidirectional_skip", forward_of<float, shapes::bidirectional_skip>()),
      forward_checks("symmetric_f7_last", forward_of<float, shapes::last(shapes::symmetric_f7)>()),
      forward_checks("bidirectional_skip_last", forward_of<float, shapes::last(shapes::bidirectional_skip)>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_forward, ::testing::ValuesIn(forward_cases()), check_name);

vector_checks backward_cases() {
  return joined({
      backward_checks("symmetric_f7", both_of<float, shapes::symmetric_f7>()),
      backward_checks("symmetric_list", both_of<float, shapes::symmetric_list>()),
      backward_checks("bidirectional_f4", both_of<float, shapes::bidirectional_f4>()),
      backward_checks("bidirectional_skip", both_of<float, shapes::bidirectional_skip>()),
      backward_checks("symmetric_list_last", both_of<float, shapes::last(shapes::symmetric_list)>()),
      backward_checks("bidirectional_skip_last", both_of<float, shapes::last(shapes::bidirectional_skip)>()),
  });
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_backward, ::testing::ValuesIn(backward_cases()), check_name);

}  // namespace
}  // namespace tcnca::testing
