// Stacks under the default tuning at the sizes of the benchmarks, which run as passes on a GPU: forward and backward
// against the reference through the public interface.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {

struct k4 {
  static constexpr char const* name = "k4_f4_d6";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 6, .dilation_base = 4, .act = activation::relu, .bias = true};
};
struct k4_silu_level {
  static constexpr char const* name = "k4_f4_d5_silu_level";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 5, .dilation_base = 4, .act = activation::silu, .residuals = residual::level, .bias = true};
};
struct k4_skip {
  static constexpr char const* name = "k4_f4_d3_skip";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 3, .dilation_base = 4, .act = activation::relu, .bias = true, .skip = true};
};
struct k4_last {
  static constexpr char const* name = "k4_f4_d6_last";
  static constexpr conv_stack_shape shape{.taps = 4,
                                          .depth = 6,
                                          .dilation_base = 4,
                                          .act = activation::relu,
                                          .bias = true,
                                          .order = layout::batch_length_channels};
};
struct k4_deep {
  static constexpr char const* name = "k4_f4_d9";
  static constexpr conv_stack_shape shape{.taps = 4, .depth = 9, .dilation_base = 4};
};
struct k8 {
  static constexpr char const* name = "k8_f8_d5";
  static constexpr conv_stack_shape shape{.taps = 8, .depth = 5, .dilation_base = 8, .act = activation::relu};
};
struct k8_mixed {
  static constexpr char const* name = "k8_f8_d5_mixed";
  static constexpr conv_stack_shape shape{.taps = 8,
                                          .depth = 5,
                                          .dilation_base = 8,
                                          .act = activation::relu,
                                          .bias = true,
                                          .weights = parameter_type::accumulate};
};
struct k17 {
  static constexpr char const* name = "k17_f16_d4";
  static constexpr conv_stack_shape shape{
      .taps = 17, .depth = 4, .dilation_base = 16, .act = activation::relu, .bias = true};
};
struct k17_mixed {
  static constexpr char const* name = "k17_f16_d4_mixed";
  static constexpr conv_stack_shape shape{.taps = 17,
                                          .depth = 4,
                                          .dilation_base = 16,
                                          .act = activation::relu,
                                          .bias = true,
                                          .weights = parameter_type::accumulate};
};
struct k51 {
  static constexpr char const* name = "k51_f51_d3";
  static constexpr conv_stack_shape shape{.taps = 51, .depth = 3, .dilation_base = 51};
};

namespace {

template <class S>
struct conv_stack_passes : ::testing::Test {};
TYPED_TEST_SUITE_P(conv_stack_passes);

/// One element, a part of a tile, more than a tile, more than the receptive field where it is short; rows that are not
/// aligned; states.
template <class S>
std::vector<extents> pass_extents(bool states) {
  index_t const field = std::min<index_t>(S::op::receptive_field, 10000);
  std::vector<extents> all{{.batch = 1, .channels = 1, .length = 1},
                           {.batch = 2, .channels = 3, .length = 1000, .where = {3, 1}},
                           {.batch = 1, .channels = 2, .length = 2 * field + 4096}};
  if (states) {
    all[1].state_in = all[1].state_out = true, all[1].position = 12345;
    all[2].state_out = true;
    all.push_back({.batch = 1, .channels = 1, .length = 9000, .position = 77, .state_in = true, .state_out = true});
  }
  return all;
}

TYPED_TEST_P(conv_stack_passes, forward_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (extents const& e : pass_extents<S>(true)) {
    SCOPED_TRACE(::testing::Message() << e);
    conv_stack_problem<S> problem(e, 1);
    problem.run_forward();
    problem.expect_forward();
  }
}
TYPED_TEST_P(conv_stack_passes, backward_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (extents const& e : pass_extents<S>(false)) {
    SCOPED_TRACE(::testing::Message() << e);
    conv_stack_problem<S> problem(e, 2);
    problem.want_gradients();
    problem.run_backward();
    problem.expect_backward();
  }
}

TYPED_TEST_P(conv_stack_passes, absent_gradients_change_no_others) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  conv_stack_problem<S> problem({.batch = 1, .channels = 3, .length = 1500}, 3);
  problem.want_gradients();
  expect_optional_gradients(problem, problem.backward(),
                            [](auto const& args) { conv_stack_problem<S>::run_backward(args, 1); });
}

// A sequence in four parts joined by its state, in place and not.
TYPED_TEST_P(conv_stack_passes, parts_match_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  conv_stack_problem<S> whole({.batch = 1, .channels = 2, .length = 12000, .position = 3, .state_out = true}, 4);
  auto state = whole.template new_sequence<typename S::A>(S::op::state_length);
  auto next = whole.template new_sequence<typename S::A>(S::op::state_length);
  index_t done = 0;
  for (index_t const n : {index_t(5000), index_t(1), index_t(1200), index_t(5799)}) {
    auto part = whole.forward();
    part.position += done;
    part.x.extent[2] = part.y.extent[2] = n;
    part.x.data += done * part.x.stride[2], part.y.data += done * part.y.stride[2];
    bool const in_place = n < 2000 && done > 0;
    if (done > 0) part.state_in = state.view();
    part.state_out = in_place ? state.view() : next.view();
    conv_stack_problem<S>::run_forward(part, 1);
    if (!in_place) std::swap(state, next);
    done += n;
  }
  whole.expect_forward(state);
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_passes, forward_matches_the_reference, backward_matches_the_reference,
                            absent_gradients_change_no_others, parts_match_the_reference);

}  // namespace
}  // namespace tcnca::testing
