// Attention by other functions in fp32: both passes.
#include "backward_suite.hpp"
#include "forward_suite.hpp"
#include "special_values_suite.hpp"

namespace tcnca::testing {
namespace {

template <class B>
using subjects_on = unless_sanitized<
    std::tuple<attention_subject<B, float, laplace_causal_bias>, attention_subject<B, float, laplace_plain>,
               attention_subject<B, float, laplace_dropout>, attention_subject<B, float, relu2_causal>>,
    std::tuple<attention_subject<B, float, laplace_dropout>, attention_subject<B, float, relu2_causal>>>;
using types = everywhere<subjects_on>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_forward, types, attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_backward, types, attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, chunked_attention_special, types, attention_subject_name);

}  // namespace
}  // namespace tcnca::testing
