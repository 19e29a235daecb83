// Both passes of causal stacks, under the small tuning.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types = all_or_few<
    subjects<small_case<float, plain>, small_case<float, list_silu_level>, small_case<float, blocks_relu_last>,
             small_case<double, skip_gelu_last>, small_case<float, one_tap>, small_case<float, many_taps_last>>,
    subjects<small_case<float, list_silu_level>, small_case<double, skip_gelu_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
