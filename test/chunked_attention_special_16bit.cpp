// Chunked attention where numbers are special, its dropout and its precision, in bf16 and fp16.
#include "support/chunked_attention_special_suite.hpp"

namespace tcnca::testing {
namespace {

template <class B>
using subjects_on = std::tuple<attention_subject<B, fp16, softmax_causal_bias>,
                               attention_subject<B, bf16, softmax_bias>,
                               attention_subject<B, bf16, softmax_causal_bias_dropout>,
                               attention_subject<B, fp16, laplace_causal_bias>>;
#if defined(__CUDACC__)
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, chunked_attention_special, decltype(attention_list(subjects_on<cuda_backend>{})), attention_subject_name);
#else
INSTANTIATE_TYPED_TEST_SUITE_P(cpu, chunked_attention_special, decltype(attention_list(subjects_on<cpu_backend>{})), attention_subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_special, decltype(attention_list(subjects_on<fiber_backend<>>{})), attention_subject_name);
#endif

}  // namespace
}  // namespace tcnca::testing
