// Residuals that are added before the activation, as in the classic residual TCN block: two convolutions, the residual,
// ReLU.
#include "backward_suite.hpp"
#include "forward_suite.hpp"
#if !defined(__CUDACC__)
#include "vector_backward_suite.hpp"
#include "vector_forward_suite.hpp"
#endif

namespace tcnca::testing {
namespace {

struct tcn_block {
  static constexpr char const* name = "tcn_block";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .depth = 3,
                                          .convolutions = 2,
                                          .act = activation::relu,
                                          .residuals = residual::level,
                                          .post_activation = true,
                                          .bias = true};
};
struct bidirectional_blocks_last {
  static constexpr char const* name = "bidirectional_blocks_last";
  static constexpr conv_stack_shape shape{.taps = 2,
                                          .dilations = {3, 1},
                                          .blocks = 2,
                                          .act = activation::silu,
                                          .residuals = residual::block,
                                          .post_activation = true,
                                          .skip = true,
                                          .dir = direction::bidirectional,
                                          .order = layout::batch_length_channels};
};

using types = all_or_few<subjects<small_case<float, tcn_block>, small_case<float, bidirectional_blocks_last>>,
                         subjects<small_case<float, tcn_block>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

#if !defined(__CUDACC__) && !defined(__SANITIZE_THREAD__)
vector_checks forward_cases() {
  return joined({forward_checks("tcn_block", forward_of<float, tcn_block::shape>()),
                 forward_checks("bidirectional_blocks_last", forward_of<float, bidirectional_blocks_last::shape>())});
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_forward, ::testing::ValuesIn(forward_cases()), check_name);

vector_checks backward_cases() {
  return joined({backward_checks("tcn_block", both_of<float, tcn_block::shape>()),
                 backward_checks("bidirectional_blocks_last", both_of<float, bidirectional_blocks_last::shape>())});
}
INSTANTIATE_TEST_SUITE_P(on_cpu, conv_stack_vector_backward, ::testing::ValuesIn(backward_cases()), check_name);
#endif

}  // namespace
}  // namespace tcnca::testing
