// expect: tcnca::gated_fusion: this shape has no reset gate
#include <tcnca/gated_fusion.hpp>
using gates = tcnca::gated_fusion<float, tcnca::gated_fusion_shape{.reset_gate = false}>;
auto status = gates::reset(tcnca::cpu{}, gates::reset_args{});
