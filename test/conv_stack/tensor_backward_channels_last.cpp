// The backward pass on tensor cores for channels-last sequences: eight channels by a cluster.
#include "tensor_backward_suite.hpp"

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
  static constexpr int max_bytes = Case::max_bytes;
};
struct two_levels {
  static constexpr char const* name = "two_levels";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 2, .dilation_base = 4, .act = activation::relu, .bias = true};
  static constexpr layer_range layers{0, 2};
  static constexpr int max_bytes = 64 * 1024;
};

using types = subjects_on<fiber_or_cuda, pass_case<bf16, channels_last<relu>>,
#if defined(__CUDACC__)
                          pass_case<bf16, channels_last<relu_4096>>,
#endif
                          pass_case<fp16, channels_last<inner_layers>>, pass_case<bf16, channels_last<two_levels>>,
                          pass_case<bf16, channels_last<one_level>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_tensor_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
