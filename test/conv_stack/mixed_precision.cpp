// Elements of 16 bits with parameters in fp32. On a GPU the causal stack runs in passes and the bidirectional one in
// the generic kernels; passes_16bit.cu tests those on tensor cores.
#include "cases.hpp"

namespace tcnca::testing {
namespace {

struct causal_mixed {
  static constexpr char const* name = "causal";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .dilations = {1, 5},
                                          .act = activation::silu,
                                          .residuals = residual::level,
                                          .bias = true,
                                          .skip = true,
                                          .weights = parameter_type::accumulate};
};
struct bidirectional_last_mixed {
  static constexpr char const* name = "bidirectional_last";
  static constexpr conv_stack_shape shape{.taps = 2,
                                          .depth = 2,
                                          .act = activation::relu,
                                          .bias = true,
                                          .skip = true,
                                          .dir = direction::bidirectional,
                                          .order = layout::batch_length_channels,
                                          .weights = parameter_type::accumulate};
};

template <class S>
struct conv_stack_mixed_precision : ::testing::Test {};
using types = all_or_few<subjects<stack_case<bf16, causal_mixed>, stack_case<fp16, bidirectional_last_mixed>>,
                         subjects<stack_case<fp16, bidirectional_last_mixed>>>;
TYPED_TEST_SUITE(conv_stack_mixed_precision, types, subject_name);

// One position is a call of the step kernel if there is a state, a few are short rows.
TYPED_TEST(conv_stack_mixed_precision, matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t seed = 1;
  for (index_t const length : {index_t(1), index_t(2), index_t(40), index_t(130), index_t(3000)})
    for (bool const state : {false, true}) {
      extents const e{.batch = 2,
                      .channels = 5,
                      .length = length,
                      .position = 3,
                      .state_in = state && S::causal,
                      .state_out = state && S::causal,
                      .where = {.padding = int(seed % 3), .offset = int(seed % 2)}};
      SCOPED_TRACE(::testing::Message() << e);
      conv_stack_problem<S> problem(e, seed++);
      problem.run_forward();
      problem.expect_forward();
      problem.want_gradients();
      problem.run_backward();
      problem.expect_backward();
    }
}

// Parameters that are elements of T give the bits of the stack with parameters in T.
TYPED_TEST(conv_stack_mixed_precision, has_the_bits_of_the_same_parameters_in_16_bits) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  using T = typename S::T;
  conv_stack_problem<S> mixed({.batch = 2, .channels = 9, .length = 333}, 3);
  mixed.round_parameters();
  mixed.want_gradients();
  mixed.run_forward();
  mixed.run_backward();
  auto const results = [](auto const& p) {
    return std::tuple{p.y.bits(), p.grad_x.bits(), p.grad_weight.bits(), p.grad_bias.bits(), p.grad_omega.bits()};
  };
  conv_stack_tensors<T> narrow(S::shape, mixed.e, 3);
  narrow.want_gradients();
  EXPECT_EQ(narrow.p.weight, mixed.p.weight);
  constexpr conv_stack_shape in_elements = [] {
    conv_stack_shape s = S::shape;
    s.weights = parameter_type::element;
    return s;
  }();
  using op = conv_stack<T, in_elements>;
  auto const executor = S::backend::make(1);
  auto const forward = narrow.template forward_args_as<typename op::forward_args>();
  auto const backward = narrow.template backward_args_as<typename op::backward_args>();
  run_with_workspace<typename S::backend>(op::forward_workspace(executor, forward),
                                          [&](workspace w) { return op::forward(executor, forward, w); });
  run_with_workspace<typename S::backend>(op::backward_workspace(executor, backward),
                                          [&](workspace w) { return op::backward(executor, backward, w); });
  EXPECT_TRUE(results(mixed) == results(narrow));
}

}  // namespace
}  // namespace tcnca::testing
