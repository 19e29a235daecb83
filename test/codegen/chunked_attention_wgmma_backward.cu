// The backward pass of attention by wgmma of sm_90a with its default tuning: no kernel spills, and the kernels use the
// intended instructions. On other architectures these kernels are empty: one shape suffices.
// sass sm_90a: HGMMA.64x64x16 HGMMA.64x128x16 HGMMA.64x256x16 UTMALDG.4D USETMAXREG STG.E.128
// barriers sm_90a: wgmma_scores_agent 1
// barriers sm_90a: wgmma_products_agent.*attention_functionE.ELb1 66
// barriers sm_90a: wgmma_products_agent 39
// barriers: attention_mma_scores_agent.*attention_functionE.ELb.ELb1ELb.*attention_sideE0 5
// barriers: attention_mma_scores_agent 3
// barriers: attention_mma_values_agent 3
#include <tcnca/chunked_attention.hpp>

using namespace tcnca;

template <class T, chunked_attention_shape Shape>
struct kernels {
  using attention = chunked_attention<T, Shape>;
  static void use(typename attention::backward_args const& backward) {
    (void)attention::backward(tcnca::cuda{}, backward, {});
  }
};

#if __CUDA_ARCH_LIST__ >= 900
template struct kernels<bf16, chunked_attention_shape{}>;
template struct kernels<fp16, chunked_attention_shape{.causal = true, .bias = true, .dropout = true}>;
template struct kernels<bf16, chunked_attention_shape{.function = attention_function::relu2}>;
#endif
template struct kernels<bf16,
                        chunked_attention_shape{
                            .function = attention_function::laplace, .causal = true, .bias = true, .dropout = true}>;
