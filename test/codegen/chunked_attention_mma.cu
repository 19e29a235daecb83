// Attention on tensor cores with its default tuning, but without clusters: no kernel spills, and the kernels use the
// intended instructions.
// sass: HMMA.16816 LDSM.16.M88.4 LDSM.16.MT88.4 LDGSTS.E.BYPASS.128
// barriers: mma_scores_agent.*attention_functionE.ELb.ELb1ELb.*attention_sideE0 5
// barriers: mma_scores_agent 3
// barriers: mma_(forward|values)_agent 3
// barriers: chunked_attention_step_agent.*attention_functionE0 15
// barriers: chunked_attention_step_agent 13
#include <tcnca/chunked_attention.hpp>

using namespace tcnca;

namespace {  // as tunings of users may be
template <class T, chunked_attention_shape Shape>
struct without_clusters : default_chunked_attention_tuning<T, Shape> {
  static constexpr chunked_attention_policy forward(target t) {
    auto p = default_chunked_attention_tuning<T, Shape>::forward(t);
    p.clusters = false;
    return p;
  }
  static constexpr chunked_attention_policy backward(target t) {
    auto p = default_chunked_attention_tuning<T, Shape>::backward(t);
    p.clusters = false;
    return p;
  }
};
}  // namespace

template <class T, chunked_attention_shape Shape>
struct kernels {
  using attention = chunked_attention<T, Shape, without_clusters<T, Shape>>;
  static void use(typename attention::forward_args const& forward, typename attention::backward_args const& backward) {
    (void)attention::forward(tcnca::cuda{}, forward, {});
    (void)attention::backward(tcnca::cuda{}, backward, {});
  }
};

constexpr auto laplace = attention_function::laplace;
template struct kernels<bf16, chunked_attention_shape{}>;
template struct kernels<bf16, chunked_attention_shape{.causal = true, .bias = true}>;
template struct kernels<fp16, chunked_attention_shape{.causal = true, .bias = true}>;
template struct kernels<bf16, chunked_attention_shape{.causal = true, .bias = true, .dropout = true}>;
template struct kernels<bf16, chunked_attention_shape{.function = laplace, .bias = true}>;
template struct kernels<bf16,
                        chunked_attention_shape{.function = laplace, .causal = true, .bias = true, .dropout = true}>;
template struct kernels<bf16, chunked_attention_shape{.function = attention_function::relu2, .causal = true}>;
