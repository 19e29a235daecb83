// The forward pass on tensor cores for channels-last sequences: eight channels by a cluster.
#include "tensor_forward_suite.hpp"

namespace tcnca::testing {
namespace {

template <class Case>
struct channels_last {
  static constexpr char const* name = Case::name;
  static constexpr conv_stack_shape shape = [] {
    conv_stack_shape s = Case::shape;
    s.order = layout::batch_length_channels;
    return s;
  }();
  static constexpr layer_range layers = Case::layers;
};

using types = subjects_on<fiber_or_cuda, pass_case<bf16, channels_last<lines_walk_owned>>,
#if defined(__CUDACC__)
                          pass_case<bf16, channels_last<burst>>,  // 4096 threads a cluster
#endif
                          pass_case<fp16, channels_last<inner_layers>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(all, conv_stack_tensor_forward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
