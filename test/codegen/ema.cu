// Averages with their default tuning: no kernel of theirs may spill.
// Those of the block scans of CUB are among the barriers.
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
  using average = ema<T, Shape>;
  static void use(typename average::forward_args const& forward, typename average::backward_args const& backward,
                  typename average::kernel_args const& kernel,
                  typename average::kernel_backward_args const& kernel_backward) {
    (void)average::forward(tcnca::cuda{}, forward, {});
    (void)average::backward(tcnca::cuda{}, backward, {});
    (void)average::kernel(tcnca::cuda{}, kernel, {});
    (void)average::kernel_backward(tcnca::cuda{}, kernel_backward, {});
  }
};

template struct kernels<float, ema_shape{}>;
template struct kernels<bf16, ema_shape{}>;
template struct kernels<bf16, ema_shape{.order = layout::batch_length_channels}>;
template struct kernels<float, ema_shape{.dir = direction::bidirectional}>;
