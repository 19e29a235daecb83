// EMAs with their default tuning: no kernel spills.
// Packed agents: two barriers around the choice of a sequence.
// barriers: packed_agent.*ema_forward_agent.*directionE2 25
// barriers: packed_agent.*ema_forward_agent.*layoutE1 15
// barriers: packed_agent.*ema_forward_agent 17
// barriers: packed_agent.*ema_backward_agent.*directionE2 49
// barriers: packed_agent.*ema_backward_agent.*layoutE1 25
// barriers: packed_agent.*ema_backward_agent 29
// barriers: ema_kernel_agent.*ema_policy.*Lb0E 4
// barriers: ema_kernel_agent 6
// barriers: ema_forward_agent.*directionE2 23
// barriers: ema_forward_agent.*layoutE1 13
// barriers: ema_forward_agent 15
// barriers: ema_backward_agent.*directionE2 47
// barriers: ema_backward_agent.*layoutE1 23
// barriers: ema_backward_agent 27
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
