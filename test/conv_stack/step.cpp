// Calls of a few tokens with a state: the bits of one call with all tokens, for packs of channels that are complete or
// not, and for states and weights in any order in memory.
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <layout Order>
struct long_field {  // so that calls of three tokens use the step kernel
  static constexpr char const* name = Order == layout::batch_channels_length ? "long_field" : "long_field_last";
  static constexpr conv_stack_shape shape{.taps = 4,
                                          .dilations = {1, 6, 3, 30},
                                          .act = activation::silu,
                                          .residuals = residual::level,
                                          .bias = true,
                                          .skip = true,
                                          .order = Order};
};
using long_field_first = long_field<layout::batch_channels_length>;
using long_field_last = long_field<layout::batch_length_channels>;

template <class S>
struct conv_stack_step : ::testing::Test {};
TYPED_TEST_SUITE_P(conv_stack_step);

/// Processes a sequence in calls of one to three tokens. in_place: otherwise the state moves to another tensor with
/// each call. weight_order: the axes of the weights from the outermost to the innermost.
template <class S>
void expect_equal_to_one_call(extents e, int const (&weight_order)[3], bool in_place, std::uint64_t seed) {
  SCOPED_TRACE(::testing::Message() << e << ", seed " << seed << (in_place ? ", in place" : ""));
  e.state_out = true;
  conv_stack_problem<S> whole(e, seed);
  whole.run_forward(seed);
  auto const y = whole.y.bits(), last_state = whole.state_out.bits();
  whole.y.clear();

  auto args = whole.forward();
  tensor<typename S::T, 3> weight(args.weight.extent, weight_order, e.where);
  weight.assign(whole.p.weight);
  args.weight = weight.view();
  auto state = whole.template new_sequence<typename S::A>(S::op::state_length);
  if (e.state_in) state.assign(whole.p.state_in);
  bool has_state = e.state_in;
  for (index_t t = 0, n; t < e.length; t += n) {
    n = std::min<index_t>(e.length - t, 1 + t % 3);
    auto next = whole.template new_sequence<typename S::A>(S::op::state_length);
    auto tokens = args;
    tokens.position += t;
    tokens.x.extent[2] = tokens.y.extent[2] = n;
    tokens.x.data += t * tokens.x.stride[2];
    tokens.y.data += t * tokens.y.stride[2];
    tokens.state_in = has_state ? state.view() : decltype(tokens.state_in){};
    bool const same_state = has_state && in_place;
    tokens.state_out = same_state ? state.view() : next.view();
    ASSERT_EQ(S::op::forward_workspace(S::backend::make(seed), tokens), 0u) << "not a call of the step kernel";
    conv_stack_problem<S>::run_forward(tokens, seed + std::uint64_t(t));
    EXPECT_TRUE(state.intact() && next.intact()) << "written outside of a state";
    if (!same_state) std::swap(state, next);
    has_state = true;
  }
  if (S::forward_rounds) return whole.expect_forward(state);  // calls of a few tokens do not round
  EXPECT_TRUE(whole.y.bits() == y) << "y";
  EXPECT_TRUE(state.bits() == last_state) << "state";
  EXPECT_TRUE(whole.y.intact() && weight.intact()) << "written outside of y";
}

TYPED_TEST_P(conv_stack_step, equals_one_call) {
  using S = TypeParam;
  constexpr int width = S::backend::is_fiber ? 4 : S::policy.width;
  std::uint64_t seed = 1;
  for (int const channels : {1, width - 1, width, width + 1, 3 * width})
    for (bool const in_place : {false, true}) {
      extents const e{.batch = 2,
                      .channels = channels,
                      .length = 20,
                      .position = index_t(7 * seed),
                      .state_in = seed % 3 > 0,
                      .where = {int(seed % 4), int(seed % 3)}};
      expect_equal_to_one_call<S>(e, {0, 1, 2}, in_place, seed);
      expect_equal_to_one_call<S>(e, {2, 0, 1}, in_place, seed);
      if (this->HasFailure()) return;
      seed++;
    }
}

// So many channels that the CPU uses several items.
TYPED_TEST_P(conv_stack_step, equals_one_call_with_many_channels) {
  using S = TypeParam;
  if (S::backend::is_fiber) return;
  expect_equal_to_one_call<S>({.batch = 9, .channels = 301, .length = 4, .state_in = true}, {0, 1, 2}, true, 3);
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_step, equals_one_call, equals_one_call_with_many_channels);

using types = all_or_few<subjects<stack_case<float, long_field_first>, stack_case<bf16, long_field_first>,
                                  stack_case<float, long_field_last>, stack_case<double, long_field_last>>,
                         subjects<stack_case<float, long_field_first>, stack_case<float, long_field_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_step, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
