// Attention by other functions in fp32: both passes.
#include "backward_suite.hpp"
#include "forward_suite.hpp"
#include "numerics_suite.hpp"
#include "special_values_suite.hpp"

namespace tcnca::testing {
namespace {

using types = all_or_few<subjects<attention_case<float, laplace_causal_bias>, attention_case<float, laplace_plain>,
                                  attention_case<float, laplace_dropout>, attention_case<float, relu2_causal>>,
                         subjects<attention_case<float, laplace_dropout>, attention_case<float, relu2_causal>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_backward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_special, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_numerics, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
