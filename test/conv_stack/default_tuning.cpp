// The default tuning: both passes at the edges of its tiles, and receptive fields much longer than a tile, for short
// and long sequences; on the CPU also with the generic kernels.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

using types = all_or_few<subjects<stack_case<float, plain>, stack_case<bf16, skip_gelu_last>>,
                         subjects<stack_case<bf16, skip_gelu_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_backward, types, subject_name);

template <class T, class Case>
using generic_case = stack_case<T, Case, generic_tuning<T, Case::shape>>;
#if !defined(__CUDACC__) && !defined(TCNCA_TEST_FEW)
using generic_types = subjects_on_one<generic_case<float, plain>, generic_case<bf16, skip_gelu_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(generic_on, conv_stack_forward, generic_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(generic_on, conv_stack_backward, generic_types, subject_name);
#endif

template <class S>
struct conv_stack_far : ::testing::Test {};
using all_far_types =
    subjects<stack_case<float, far_first>, stack_case<float, far_last_4096>, stack_case<float, far_skip_last>>;
// The small tuning covers rings in global memory of channels first.
using far_types = all_or_few<all_far_types, subjects<stack_case<float, far_last_4096>>>;
TYPED_TEST_SUITE_P(conv_stack_far);

template <class S>
std::vector<extents> far_extents() {
  index_t const r = S::op::receptive_field;
  return {{.batch = 1, .channels = 1, .length = 1, .position = 77, .state_in = true, .state_out = true},
          {.batch = 2, .channels = 3, .length = 700},
          {.batch = 1, .channels = 3, .length = 5000, .position = 123456, .state_in = true, .state_out = true},
          {.batch = 1, .channels = 1, .length = r + 1001, .state_out = true},
          {.batch = 1, .channels = 1, .length = r - 1, .position = 5, .state_in = true}};
}

TYPED_TEST_P(conv_stack_far, forward_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (extents const& e : far_extents<S>()) {
    SCOPED_TRACE(::testing::Message() << e);
    conv_stack_problem<S> problem(e, 1);
    problem.run_forward();
    problem.expect_forward();
  }
}

TYPED_TEST_P(conv_stack_far, backward_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (extents const& e : far_extents<S>()) {
    SCOPED_TRACE(::testing::Message() << e);
    conv_stack_problem<S> problem(e, 2);
    problem.want_gradients();
    problem.run_backward();
    problem.expect_backward();
  }
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_far, forward_matches_the_reference, backward_matches_the_reference);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_far, far_types, subject_name);
// Compilers take a minute for a GPU's kernels with 51 unrolled taps, which far_first covers but for the number of taps.
#if !defined(__CUDACC__) && !defined(TCNCA_TEST_FEW)
using far_cpu_types = subjects_on_one<stack_case<float, far_51_taps>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on_cpu, conv_stack_far, far_cpu_types, subject_name);
using far_generic_types = subjects_on_one<generic_case<float, far_first>, generic_case<float, far_skip_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(generic_on, conv_stack_far, far_generic_types, subject_name);
#endif

// More than 2^31 elements: positions and offsets need 64 bits. It takes 9 GB and one to two minutes, so it is disabled
// by default: test_conv_stack_default_tuning --gtest_also_run_disabled_tests --gtest_filter='*large*'
struct two_taps {
  static constexpr char const* name = "large";
  static constexpr conv_stack_shape shape{.taps = 2, .depth = 2, .dilation_base = 5};
};
template <class S>
struct conv_stack_large : ::testing::Test {};
using large_types = subjects_on_one<stack_case<bf16, two_taps>>;
TYPED_TEST_SUITE(conv_stack_large, large_types, subject_name);

TYPED_TEST(conv_stack_large, DISABLED_more_than_2_to_the_31_elements) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  index_t const length = (index_t(1) << 31) + 777;
  guarded_bytes const x(std::size_t(length) * 2, 0), y(std::size_t(length) * 2, 0);
  auto const in = reinterpret_cast<bf16*>(x.data()), out = reinterpret_cast<bf16*>(y.data());
  // x is a sawtooth with a prime period, so that every wrong position changes the result.
  auto const at = [](index_t t) { return t < 0 ? 0.0 : double(t % 251) - 125; };
  bf16 table[251];
  for (int i = 0; i < 251; i++) table[i] = from_double<bf16>(at(i));
  for (index_t t = 0; t < length; t++) in[t] = table[t % 251];
  double const w[2][2] = {{1, 0.5}, {1, -0.25}};
  bf16 weight[4];
  for (int i = 0; i < 4; i++) weight[i] = from_double<bf16>(w[i / 2][i % 2]);
  typename S::op::forward_args const args{.x = contiguous(static_cast<bf16 const*>(in), 1, 1, length),
                                          .weight = contiguous(static_cast<bf16 const*>(weight), 2, 2, 1),
                                          .y = contiguous(out, 1, 1, length)};
  conv_stack_problem<S>::run_forward(args, 0);
  auto const first = [&](index_t t) { return t < 0 ? 0.0 : w[0][0] * at(t) + w[0][1] * at(t - 1); };
  for (index_t t = 0; t < length; t += t < 100000 || t > length - 100000 ? 1 : 4099)
    ASSERT_EQ(to_double(out[t]), round_to(w[1][0] * first(t) + w[1][1] * first(t - 5), format_of<bf16>))
        << "position " << t;
  EXPECT_TRUE(y.intact());
}

}  // namespace
}  // namespace tcnca::testing
