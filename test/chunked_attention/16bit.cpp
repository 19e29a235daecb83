// Attention in bf16 and fp16, on tensor cores where there are any: both passes.
#include "backward_suite.hpp"
#include "forward_suite.hpp"
#include "special_values_suite.hpp"

namespace tcnca::testing {
namespace {

template <class B>
using subjects_on = unless_sanitized<
    std::tuple<attention_subject<B, fp16, softmax_causal_bias>, attention_subject<B, bf16, softmax_bias>,
               attention_subject<B, bf16, softmax_causal_bias_dropout>, attention_subject<B, fp16, laplace_causal_bias>,
               attention_subject<B, bf16, relu2_causal>>,
    std::tuple<attention_subject<B, bf16, softmax_causal_bias_dropout>>>;
using types = everywhere<subjects_on>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_forward, types, attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_backward, types, attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_special, types, attention_subject_name);

}  // namespace
}  // namespace tcnca::testing
