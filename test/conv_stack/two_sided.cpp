// Both passes of symmetric and bidirectional stacks, under a tuning that brings all edges close.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types = unless_sanitized<subjects<pending<float, symmetric_gelu>, pending<double, symmetric_last>,
                                        pending<float, bidirectional_skip>, pending<float, bidirectional_last>>,
                               subjects<pending<float, symmetric_gelu>, pending<float, bidirectional_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
