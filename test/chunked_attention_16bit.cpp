// Both passes of chunked attention in bf16 and fp16.
#include "support/chunked_attention_backward_suite.hpp"
#include "support/chunked_attention_forward_suite.hpp"

namespace tcnca::testing {
namespace {

template <class B>
using subjects_on = std::tuple<attention_subject<B, bf16, softmax_causal_bias>, attention_subject<B, fp16, softmax_plain>,
                               attention_subject<B, fp16, laplace_causal_bias>, attention_subject<B, bf16, relu2_causal>>;
#if defined(__CUDACC__)
using types = decltype(attention_list(subjects_on<cuda_backend>{}));
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, chunked_attention_forward, types, attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, chunked_attention_backward, types, attention_subject_name);
#else
using cpu_types = decltype(attention_list(subjects_on<cpu_backend>{}));
INSTANTIATE_TYPED_TEST_SUITE_P(cpu, chunked_attention_forward, cpu_types, attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(cpu, chunked_attention_backward, cpu_types, attention_subject_name);
using fiber_types = decltype(attention_list(subjects_on<fiber_backend<>>{}));
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_forward, fiber_types, attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_backward, fiber_types, attention_subject_name);
#endif

}  // namespace
}  // namespace tcnca::testing
