// EMAs with their default tuning: no kernel spills. The counts of barriers include those of CUB's block scans.
// barriers: ema_kernel_agent.*ema_policy.*Lb0E 4
// barriers: ema_kernel_agent 6
// barriers: ema_forward_agent.*directionE2 26
// barriers: ema_forward_agent 17
// barriers: ema_backward_agent.*directionE2 54
// barriers: ema_backward_agent 31
#include <tcnca/ema.hpp>

using namespace tcnca;

template <class T, ema_shape Shape>
struct kernels {
  using op = ema<T, Shape>;
  static void use(typename op::forward_args const& forward, typename op::backward_args const& backward,
                  typename op::kernel_args const& kernel, typename op::kernel_backward_args const& kernel_backward) {
    (void)op::forward(tcnca::cuda{}, forward, {});
    (void)op::backward(tcnca::cuda{}, backward, {});
    (void)op::kernel(tcnca::cuda{}, kernel, {});
    (void)op::kernel_backward(tcnca::cuda{}, kernel_backward, {});
  }
};

template struct kernels<float, ema_shape{}>;
template struct kernels<bf16, ema_shape{}>;
template struct kernels<bf16, ema_shape{.order = layout::batch_length_channels}>;
template struct kernels<float, ema_shape{.dir = direction::bidirectional}>;
