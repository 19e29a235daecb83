// More than 2^31 elements: positions and offsets past 32 bits. Needs 18 GB and minutes, so only where TCNCA_TEST_LARGE is set.
#include "support/conv_stack_cases.hpp"

namespace tcnca::testing {
namespace {

struct two_taps {
  static constexpr char const* name = "large";
  static constexpr conv_stack_shape shape{.taps = 2, .depth = 2, .dilation_base = 5};
};
template <class S>
struct conv_stack_large : ::testing::Test {};
using types = subjects<pending<bf16, two_taps, default_conv_stack_tuning<bf16, two_taps::shape>>>;
TYPED_TEST_SUITE(conv_stack_large, types, subject_name);

TYPED_TEST(conv_stack_large, more_than_2_to_the_31) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (environment("TCNCA_TEST_LARGE", 0) == 0) GTEST_SKIP() << "needs 18 GB; set TCNCA_TEST_LARGE=1 to run it";
  index const length = (index(1) << 31) + 777;
  guarded_bytes const x(std::size_t(length) * 2, 0), y(std::size_t(length) * 2, 0);
  auto const in = reinterpret_cast<bf16*>(x.data()), out = reinterpret_cast<bf16*>(y.data());
  // x is a sawtooth whose period is prime, so that a position that is off shows.
  auto const at = [](index t) { return t < 0 ? 0.0 : double(t % 251) - 125; };
  bf16 table[251];
  for (int i = 0; i < 251; i++) table[i] = from_double<bf16>(at(i));
  for (index t = 0; t < length; t++) in[t] = table[t % 251];
  double const w[2][2] = {{1, 0.5}, {1, -0.25}};
  bf16 weight[4];
  for (int i = 0; i < 4; i++) weight[i] = from_double<bf16>(w[i / 2][i % 2]);
  typename S::op::forward_args const args{.x = contiguous(static_cast<bf16 const*>(in), 1, 1, length),
                                          .weight = contiguous(static_cast<bf16 const*>(weight), 2, 2, 1),
                                          .y = contiguous(out, 1, 1, length)};
  conv_stack_problem<S>::run_forward(args, 0);
  auto const first = [&](index t) { return t < 0 ? 0.0 : w[0][0] * at(t) + w[0][1] * at(t - 1); };
  for (index t = 0; t < length; t += t < 100000 || t > length - 100000 ? 1 : 4099)
    ASSERT_EQ(to_double(out[t]), round_to(w[1][0] * first(t) + w[1][1] * first(t - 5), format_of<bf16>)) << "position " << t;
  EXPECT_TRUE(y.intact());
}

}  // namespace
}  // namespace tcnca::testing
