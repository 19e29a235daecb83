// Both passes in bf16 and fp16.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types = unless_sanitized<subjects<pending<bf16, plain>, pending<fp16, list_silu_level>,
                                        pending<bf16, skip_gelu_last>, pending<fp16, bidirectional_last>>,
                               subjects<pending<fp16, list_silu_level>, pending<fp16, bidirectional_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
