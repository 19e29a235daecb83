// The forward pass under a tuning that brings all edges close.
#include "support/conv_stack_forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types = subjects<pending<float, plain>, pending<double, list_silu_level>, pending<float, list_silu_level>, pending<float, blocks_relu_last>,
                       pending<float, skip_gelu_last>, pending<float, symmetric_gelu>, pending<double, symmetric_last>, pending<float, bidirectional_skip>,
                       pending<float, bidirectional_last>, pending<float, one_tap>, pending<float, many_taps_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
