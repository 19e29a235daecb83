// Attention on clusters of sm_90a with its default tuning: no kernel spills, and the kernels use the intended
// instructions. On other architectures these kernels are empty.
// sass sm_90a: HGMMA.64x64x16 HGMMA.64x256x16 LDGSTS.E.BYPASS.128 UCGABAR_ARV
// barriers sm_90a: wgmma_forward_agent.*attention_functionE.ELb0 2
// barriers sm_90a: wgmma_forward_agent 5
// barriers: attention_mma_forward_agent 3
// barriers: chunked_attention_step_agent.*attention_functionE0 4
// barriers: chunked_attention_step_agent 2
#include <tcnca/chunked_attention.hpp>

using namespace tcnca;

template <class T, chunked_attention_shape Shape>
struct kernels {
  using attention =
      chunked_attention<T, Shape, clustered_chunked_attention_tuning<default_chunked_attention_tuning<T, Shape>>>;
  static void use(typename attention::forward_args const& forward) {
    (void)attention::forward(tcnca::cuda{}, forward, {});
  }
};

constexpr auto laplace = attention_function::laplace;
template struct kernels<bf16, chunked_attention_shape{}>;
template struct kernels<bf16, chunked_attention_shape{.causal = true, .bias = true}>;
template struct kernels<fp16, chunked_attention_shape{.causal = true, .bias = true}>;
template struct kernels<bf16, chunked_attention_shape{.causal = true, .bias = true, .dropout = true}>;
template struct kernels<bf16, chunked_attention_shape{.function = laplace, .causal = true, .bias = true}>;
template struct kernels<fp16,
                        chunked_attention_shape{.function = laplace, .causal = true, .bias = true, .dropout = true}>;
template struct kernels<bf16, chunked_attention_shape{.function = attention_function::relu2}>;
