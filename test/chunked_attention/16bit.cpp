// Attention in bf16 and fp16, on tensor cores where there are any: both passes.
#include "backward_suite.hpp"
#include "forward_suite.hpp"
#include "numerics_suite.hpp"
#include "special_values_suite.hpp"

namespace tcnca::testing {
namespace {

using types =
    all_or_few<subjects<attention_case<bf16, softmax_causal_bias_dropout>, attention_case<fp16, laplace_causal_bias>>,
               subjects<attention_case<bf16, softmax_causal_bias_dropout>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_backward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_special, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_numerics, types, subject_name);

// On fibers a type takes half a minute.
#if !defined(TCNCA_TEST_FEW)
using more_types = subjects_on_one<attention_case<fp16, softmax_causal_bias>, attention_case<bf16, softmax_bias>,
                                   attention_case<bf16, relu2_causal>>;
INSTANTIATE_TYPED_TEST_SUITE_P(more_on, chunked_attention_forward, more_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(more_on, chunked_attention_backward, more_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(more_on, chunked_attention_special, more_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(more_on, chunked_attention_numerics, more_types, subject_name);
#endif

}  // namespace
}  // namespace tcnca::testing
