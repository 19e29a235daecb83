// Both passes of symmetric and bidirectional stacks, under the small tuning.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types = all_or_few<subjects<small_case<float, symmetric_gelu>, small_case<double, symmetric_last>,
                                  small_case<float, bidirectional_skip>, small_case<float, bidirectional_last>>,
                         subjects<small_case<float, symmetric_gelu>, small_case<float, bidirectional_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
