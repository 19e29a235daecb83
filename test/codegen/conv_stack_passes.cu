// The kernels of passes in fp32, and those on tensor cores backward: no kernel spills. The forward kernel on tensor
// cores spills some bytes to hold more blocks on a multiprocessor; counts.txt has its budget.
#include <tcnca/conv_stack.hpp>

using namespace tcnca;

template <class T, conv_stack_shape Shape>
struct kernels {
  using stack = conv_stack<T, Shape>;
  template <class Args>
  using forward_passes = detail::conv_stack_forward_passes<T, Shape, stack_kernels::automatic, cuda, Args>;
  template <class Args>
  using backward_passes = detail::conv_stack_backward_passes<T, Shape, stack_kernels::automatic, cuda, Args>;

  static void forward(typename stack::forward_args const& args) {
    (void)forward_passes<typename stack::forward_args>{cuda{}, args}.launch();
  }
  static void backward(typename stack::backward_args const& args) {
    (void)backward_passes<typename stack::backward_args>(cuda{}, args).launch({});
  }
};

constexpr conv_stack_shape k4{.taps = 4, .depth = 6, .dilation_base = 4};
#if __CUDA_ARCH_LIST__ >= 900  // for sm_80 the forward kernels in fp32 spill a few bytes
template struct kernels<float, k4>;
template struct kernels<float, conv_stack_shape{.taps = 8, .depth = 5, .dilation_base = 8}>;
template struct kernels<float, conv_stack_shape{.taps = 17, .depth = 4, .dilation_base = 16}>;
#else
template void kernels<float, k4>::backward(conv_stack<float, k4>::backward_args const&);
#endif
template void kernels<bf16, k4>::backward(conv_stack<bf16, k4>::backward_args const&);
