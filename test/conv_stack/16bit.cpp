// Both passes in bf16 and fp16.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types = all_or_few<subjects<small_case<bf16, plain>, small_case<fp16, list_silu_level>,
                                  small_case<bf16, skip_gelu_last>, small_case<fp16, bidirectional_last>>,
                         subjects<small_case<fp16, list_silu_level>, small_case<fp16, bidirectional_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
