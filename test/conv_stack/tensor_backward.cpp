// The backward pass on tensor cores for rows along the length.
#include "tensor_backward_suite.hpp"

namespace tcnca::testing {
namespace {

// Plans that dispatch relies on, and shapes without one.
constexpr bool has_plan(int taps, int base, int depth, layer_range layers, activation act = activation::relu) {
  return make_tensor_backward_plan({.taps = taps, .depth = depth, .dilation_base = base, .act = act, .bias = true},
                                   layers, tensor_backward_bytes)
      .exists;
}
constexpr bool has_plans(int taps, int base, int from, int to) {
  bool all = true;
  for (int depth = from; depth <= to; depth++)
    all = all && has_plan(taps, base, depth, {0, depth}) && has_plan(taps, base, depth + 2, {0, depth});
  return all;
}
static_assert(has_plans(4, 4, 1, 6) && has_plans(8, 8, 2, 4) && has_plans(17, 16, 1, 3) && has_plans(3, 2, 2, 8));
static_assert(has_plan(4, 4, 9, {2, 6}, activation::silu) && !has_plan(8, 8, 5, {0, 5}) &&
              !has_plan(51, 51, 3, {1, 2}));
static_assert(!make_tensor_backward_plan({.depth = 2, .dir = direction::bidirectional}, {0, 2}, 232448).exists &&
              !make_tensor_backward_plan({.depth = 2, .skip = true}, {0, 2}, 232448).exists);
static_assert(!has_tensor_backward_plan<float, conv_stack_shape{.depth = 2}, layer_range{0, 2}>);

using types = subjects_on<fiber_or_cuda, pass_case<bf16, relu>, pass_case<bf16, relu_4096>, pass_case<bf16, linear>,
                          pass_case<fp16, residuals>, pass_case<fp16, inner_layers>, pass_case<bf16, one_level>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_tensor_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
