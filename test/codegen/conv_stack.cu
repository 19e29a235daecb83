// The generic kernels for stacks like those of the headline benchmark: no kernel spills. They are the same code for all
// architectures: sm_80 compiles those with the most options.
// barriers: conv_stack_forward_agent 3
// barriers: conv_stack_backward_agent 14
// barriers: conv_stack_step_agent.*layoutE1 0
// barriers: conv_stack_step_agent 1
#include <tcnca/conv_stack.hpp>

using namespace tcnca;

template <class T, conv_stack_shape Shape>
struct generic_tuning : default_conv_stack_tuning<T, Shape> {
  using base = default_conv_stack_tuning<T, Shape>;
  static constexpr conv_stack_policy with(conv_stack_policy p) {
    p.kernels = stack_kernels::generic;
    return p;
  }
  static constexpr conv_stack_policy forward(target t) { return with(base::forward(t)); }
  static constexpr conv_stack_policy backward(target t) { return with(base::backward(t)); }
};

template <class T, conv_stack_shape Shape>
struct kernels {
  using stack = conv_stack<T, Shape, generic_tuning<T, Shape>>;
  static void use(typename stack::forward_args const& forward, typename stack::backward_args const& backward) {
    (void)stack::forward(cuda{}, forward, {});
    (void)stack::backward(cuda{}, backward, {});
  }
};

constexpr auto channels_last = layout::batch_length_channels;
#if __CUDA_ARCH_LIST__ >= 900
template struct kernels<float, conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4}>;
template struct kernels<float, conv_stack_shape{.taps = 17, .depth = 4, .dilation_base = 16}>;
template struct kernels<float, conv_stack_shape{.taps = 51, .depth = 3, .dilation_base = 51}>;
template struct kernels<bf16, conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4}>;
#endif
template struct kernels<float, conv_stack_shape{.taps = 4, .depth = 6, .dilation_base = 4, .order = channels_last}>;
template struct kernels<float, conv_stack_shape{.taps = 4,
                                                .depth = 6,
                                                .dilation_base = 4,
                                                .act = activation::silu,
                                                .residuals = residual::level,
                                                .bias = true,
                                                .skip = true}>;
