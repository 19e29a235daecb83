// The forward pass on tensor cores for rows along the length.
#include "tensor_forward_suite.hpp"

namespace tcnca::testing {
namespace {

// Plans that dispatch relies on, and shapes without one.
constexpr bool has_plan(int taps, int base, int depth, layer_range layers) {
  return make_tensor_plan({.taps = taps, .depth = depth, .dilation_base = base}, layers).exists;
}
constexpr bool has_plans(int taps, int base, int from, int to) {
  bool all = true;
  for (int depth = from; depth <= to; depth++) all = all && has_plan(taps, base, depth, {0, depth});
  return all;
}
static_assert(has_plans(4, 4, 1, 6) && has_plans(8, 8, 1, 5) && has_plans(17, 16, 1, 4) && has_plans(3, 2, 1, 12));
static_assert(has_plans(5, 4, 1, 6) && has_plans(2, 2, 1, 12) && has_plans(9, 8, 1, 4) && has_plans(51, 16, 1, 2));
static_assert(has_plan(4, 4, 9, {0, 6}) && has_plan(4, 4, 9, {4, 6}) && has_plan(8, 8, 6, {0, 5}) &&
              has_plan(8, 8, 6, {0, 4}) && has_plan(51, 51, 3, {0, 1}));
static_assert(!has_plan(8, 8, 6, {0, 6}) && !has_plan(51, 51, 3, {1, 2}) && !has_plan(4, 4, 9, {8, 9}) &&
              !has_plan(1, 2, 2, {0, 2}));
static_assert(!make_tensor_plan({.depth = 2, .dir = direction::bidirectional}, {0, 2}).exists &&
              !make_tensor_plan({.depth = 2, .skip = true}, {0, 2}).exists &&
              !make_tensor_plan({.depth = 2, .convolutions = 2, .residuals = residual::level}, {0, 4}).exists);
static_assert(!has_tensor_forward_plan<float, conv_stack_shape{.depth = 2}, layer_range{0, 2}>);

using types = subjects_on<fiber_or_cuda, pass_case<bf16, lines_walk_owned>, pass_case<bf16, burst>,
                          pass_case<fp16, residuals>, pass_case<fp16, inner_layers>>;
INSTANTIATE_TYPED_TEST_SUITE_P(all, conv_stack_tensor_forward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
