// Both passes of causal stacks, under a tuning that brings all edges close.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types =
    unless_sanitized<subjects<pending<float, plain>, pending<float, list_silu_level>, pending<float, blocks_relu_last>,
                              pending<double, skip_gelu_last>, pending<float, one_tap>, pending<float, many_taps_last>>,
                     subjects<pending<float, list_silu_level>, pending<double, skip_gelu_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
