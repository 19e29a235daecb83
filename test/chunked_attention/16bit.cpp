// Attention in bf16 and fp16, on tensor cores where there are any: both passes. On the CPU also by products of bf16,
// whether they are the default for this processor or not.
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

#if !defined(__CUDACC__) && !defined(__SANITIZE_THREAD__)
template <chunked_attention_shape Shape>
struct bf16_products_tuning {
  using defaults = default_chunked_attention_tuning<bf16, Shape>;
  static constexpr chunked_attention_policy forward(target t) { return with_products(defaults::forward(t)); }
  static constexpr chunked_attention_policy backward(target t) { return with_products(defaults::backward(t)); }
  static constexpr chunked_attention_policy with_products(chunked_attention_policy p) {
    p.bf16_products = true;
    return p;
  }
};
template <class Case>
struct bf16_products_subject : attention_subject<cpu_backend, bf16, Case> {
  using op = chunked_attention<bf16, Case::shape, bf16_products_tuning<Case::shape>>;
  static std::string name() { return attention_subject<cpu_backend, bf16, Case>::name() + "_products"; }
};
using product_types = ::testing::Types<bf16_products_subject<softmax_causal_bias_dropout>>;
INSTANTIATE_TYPED_TEST_SUITE_P(products_on, chunked_attention_forward, product_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(products_on, chunked_attention_backward, product_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(products_on, chunked_attention_special, product_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(products_on, chunked_attention_numerics, product_types, subject_name);
#endif

}  // namespace
}  // namespace tcnca::testing
