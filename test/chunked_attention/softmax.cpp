// Attention by softmax in fp32 and fp64: both passes.
#include "backward_suite.hpp"
#include "forward_suite.hpp"
#include "numerics_suite.hpp"
#include "special_values_suite.hpp"

namespace tcnca::testing {
namespace {

using all_types = subjects<attention_case<float, softmax_plain>, attention_case<float, softmax_causal_bias>,
                           attention_case<float, softmax_causal_bias_dropout>, attention_case<double, softmax_bias>>;
using few_types = subjects<attention_case<float, softmax_causal_bias_dropout>, attention_case<double, softmax_bias>>;
using types = all_or_few<all_types, few_types>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_backward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_special, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_numerics, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
