// Attention in fp32 and fp64 with its default tuning: no kernel spills.
// barriers: chunked_attention_backward_agent 15
// barriers: chunked_attention_forward_agent.*attention_functionE0 11
// barriers: chunked_attention_forward_agent 8
// barriers: chunked_attention_step_agent 15
#include <tcnca/chunked_attention.hpp>

using namespace tcnca;

template <class T, chunked_attention_shape Shape>
struct kernels {
  using attention = chunked_attention<T, Shape>;
  static void use(typename attention::forward_args const& forward, typename attention::backward_args const& backward,
                  typename attention::rotary_args const& rotary,
                  typename attention::rotary_backward_args const& rotary_backward) {
    (void)attention::forward(tcnca::cuda{}, forward, {});
    (void)attention::backward(tcnca::cuda{}, backward, {});
    (void)attention::rotary(tcnca::cuda{}, rotary);
    (void)attention::rotary_backward(tcnca::cuda{}, rotary_backward);
  }
};

template struct kernels<float, chunked_attention_shape{.causal = true, .bias = true, .dropout = true}>;
template struct kernels<float, chunked_attention_shape{.function = attention_function::laplace}>;
template struct kernels<double, chunked_attention_shape{.causal = true, .bias = true}>;
