// Gates with their default tuning: no kernel spills.
// barriers: mix_backward_agent 2
// barriers: mix_reduce_agent 2
#include <tcnca/gated_fusion.hpp>

using namespace tcnca;

template <class T, gated_fusion_shape Shape>
struct kernels {
  using gates = gated_fusion<T, Shape>;
  static void use(typename gates::mix_args const& mix, typename gates::mix_backward_args const& mix_backward,
                  typename gates::reset_args const& reset, typename gates::reset_backward_args const& reset_backward,
                  typename gates::update_args const& update,
                  typename gates::update_backward_args const& update_backward) {
    (void)gates::mix(tcnca::cuda{}, mix);
    (void)gates::mix_backward(tcnca::cuda{}, mix_backward, {});
    (void)gates::reset(tcnca::cuda{}, reset);
    (void)gates::reset_backward(tcnca::cuda{}, reset_backward);
    (void)gates::update(tcnca::cuda{}, update);
    (void)gates::update_backward(tcnca::cuda{}, update_backward);
  }
};

template struct kernels<float, gated_fusion_shape{}>;
template struct kernels<bf16, gated_fusion_shape{}>;
template struct kernels<bf16, gated_fusion_shape{.dropout = true}>;
