// Attention on clusters of sm_90a with its default tuning: no kernel spills, and the kernels use the intended
// instructions. On other architectures these kernels are empty: two shapes suffice.
// sass sm_90a: HGMMA.64x64x16 HGMMA.64x256x16 UTMALDG.4D UTMALDG.4D.MULTICAST UBLKCP STAS STSM USETMAXREG UCGABAR_ARV
// barriers sm_90a: wgmma_forward_agent 10
// barriers: attention_mma_forward_agent 3
// barriers: chunked_attention_step_agent.*attention_functionE0 15
// barriers: chunked_attention_step_agent 13
#include <tcnca/chunked_attention.hpp>

using namespace tcnca;

template <class T, chunked_attention_shape Shape>
struct kernels {
  using attention = chunked_attention<T, Shape>;
  static void use(typename attention::forward_args const& forward) {
    (void)attention::forward(tcnca::cuda{}, forward, {});
  }
};

constexpr auto laplace = attention_function::laplace;
#if __CUDA_ARCH_LIST__ >= 900
template struct kernels<bf16, chunked_attention_shape{}>;
template struct kernels<fp16, chunked_attention_shape{.causal = true, .bias = true}>;
template struct kernels<bf16, chunked_attention_shape{.causal = true, .bias = true, .dropout = true}>;
template struct kernels<bf16, chunked_attention_shape{.function = laplace, .causal = true, .bias = true}>;
template struct kernels<bf16, chunked_attention_shape{.function = attention_function::relu2}>;
#endif
template struct kernels<bf16, chunked_attention_shape{.causal = true, .bias = true}>;
template struct kernels<fp16,
                        chunked_attention_shape{.function = laplace, .causal = true, .bias = true, .dropout = true}>;
