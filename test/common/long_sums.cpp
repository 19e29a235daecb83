// Gradients of parameters over up to a million positions. All terms are positive, so that errors do not cancel. At most
// 1024 terms are summed in fp32, the rest in fp64: what remains is the random walk of 1024 roundings, 16 units of
// roundoff. Sums in fp32 alone were off by 18 to 1500 units.
#include <tcnca/conv_stack.hpp>
#include <tcnca/ema.hpp>
#include <tcnca/gated_fusion.hpp>

#include "support/backend.hpp"
#include "support/compare.hpp"

namespace tcnca::testing {
namespace {

constexpr double allowed = 0x1p-20;

template <class B>
struct long_sums : ::testing::Test {
  // If threads share a sequence: long enough that fp32 sums end within each thread's part.
  static constexpr index_t length = std::is_same_v<B, cpu_backend> ? (index_t(1) << 20) + 5 : 300005;

  template <int Rank>
  static std::vector<double> fill(tensor<float, Rank>& t, std::uint64_t seed) {
    random_bits r{seed};
    for (index_t i = 0; i < t.count(); i++) *t.at(i) = float(std::abs(uniform(r)));
    return t.values();
  }
  static double silu_derivative(double v) {
    double const s = 1 / (1 + std::exp(-v));
    return s * (1 + v * (1 - s));
  }
};
TYPED_TEST_SUITE(long_sums, list_of<backends>::type, backend_name);

TYPED_TEST(long_sums, of_an_average) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  using op = ema<float, ema_shape{.states = 1, .skip = true}>;
  index_t const n = this->length;
  tensor<float, 3> x({1, 1, n}, {0, 1, 2}), grad_y({1, 1, n}, {0, 1, 2}), grad_x({1, 1, n}, {0, 1, 2});
  tensor<float, 2> zero({1, 1}, {0, 1}), one({1, 1}, {0, 1}), delta({1, 1}, {0, 1}), alpha({1, 1}, {0, 1}),
      beta({1, 1}, {0, 1}), gamma({1, 1}, {0, 1});
  tensor<float, 1> omega({1}, {0}), grad_omega({1}, {0});
  auto const in = this->fill(x, 1);
  zero.assign({0}), one.assign({1}), omega.assign({1}), grad_y.assign(std::vector<double>(std::size_t(n), 1));
  typename op::backward_args const a{.x = x.view(),
                                     .delta = zero.view(),
                                     .alpha = zero.view(),
                                     .beta = one.view(),
                                     .gamma = one.view(),
                                     .omega = omega.view(),
                                     .grad_y = grad_y.view(),
                                     .grad_x = grad_x.view(),
                                     .grad_delta = delta.view(),
                                     .grad_alpha = alpha.view(),
                                     .grad_beta = beta.view(),
                                     .grad_gamma = gamma.view(),
                                     .grad_omega = grad_omega.view()};
  auto const e = B::make(1);
  run_with_workspace<B>(op::backward_workspace(e, a), [&](workspace w) { return op::backward(e, a, w); });

  // h = q h + u x, y = silu(h + x); l and e: the derivatives of y and of the decay by h.
  double const q = 0.75, u = 0.5;
  std::vector<double> g(in.size());
  double h = 0, l = 0, h_by_q = 0, of_omega = 0, of_l = 0, of_decay = 0;
  for (std::size_t t = 0; t < in.size(); t++)
    h = q * h + u * in[t], g[t] = this->silu_derivative(h + in[t]), of_omega += g[t] * in[t];
  for (std::size_t t = in.size(); t-- > 0;)
    h_by_q = l + q * h_by_q, l = g[t] + q * l, of_l += l * in[t], of_decay += h_by_q * in[t];
  double const of_q = u * of_decay;
  EXPECT_NEAR(*grad_omega.at(0), of_omega, allowed * of_omega);
  EXPECT_NEAR(*beta.at(0), u * of_l, allowed * u * of_l);
  EXPECT_NEAR(*gamma.at(0), u * of_l, allowed * u * of_l);
  EXPECT_NEAR(*alpha.at(0), -of_q / 8, allowed * of_q / 8);
  EXPECT_NEAR(*delta.at(0), (of_l - of_q / 2) / 4,
              allowed * (of_l + of_q / 2) / 4);  // two large numbers that nearly cancel
}

TYPED_TEST(long_sums, of_the_kernel_of_an_average) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  using op = ema<float, ema_shape{.states = 1}>;
  index_t const n = this->length;
  tensor<float, 2> slow({1, 1}, {0, 1}), one({1, 1}, {0, 1}), grad_kappa({1, n}, {0, 1});
  tensor<float, 2> delta({1, 1}, {0, 1}), alpha({1, 1}, {0, 1}), beta({1, 1}, {0, 1}), gamma({1, 1}, {0, 1});
  slow.assign({-7}), one.assign({1});  // a decay of one in a million
  auto const given = this->fill(grad_kappa, 2);
  typename op::kernel_backward_args const a{.delta = slow.view(),
                                            .alpha = slow.view(),
                                            .beta = one.view(),
                                            .gamma = one.view(),
                                            .grad_kappa = grad_kappa.view(),
                                            .grad_delta = delta.view(),
                                            .grad_alpha = alpha.view(),
                                            .grad_beta = beta.view(),
                                            .grad_gamma = gamma.view()};
  auto const e = B::make(1);
  run_with_workspace<B>(op::kernel_backward_workspace(e, a), [&](workspace w) { return op::kernel_backward(e, a, w); });

  double const p = 1 / (1 + std::exp(7.0)), q = 1 - p * p;
  double power = 1, plain = 0, moment = 0;
  for (std::size_t t = 0; t < given.size(); t++, power *= q)
    plain += given[t] * power, moment += double(t) * given[t] * power / q;
  double const of_q = p * moment;
  EXPECT_NEAR(*beta.at(0), p * plain, allowed * p * plain);
  EXPECT_NEAR(*gamma.at(0), p * plain, allowed * p * plain);
  EXPECT_NEAR(*alpha.at(0), -of_q * p * p * (1 - p), allowed * of_q * p * p);
  EXPECT_NEAR(*delta.at(0), (plain - of_q * p) * p * (1 - p), allowed * (plain + of_q * p) * p);
}

struct along_length {
  static constexpr conv_stack_shape shape{.taps = 4, .bias = true, .skip = true};
  using op = conv_stack<float, shape>;
};
struct channels_last {
  static constexpr conv_stack_shape shape{
      .taps = 4, .bias = true, .skip = true, .order = layout::batch_length_channels};
  using op = conv_stack<float, shape>;
};
/// y = silu(bias + sum of weight x + omega x), and the gradients of the parameters twice, by different numbers of
/// threads.
template <class Case, class Test, class B>
void check_stack(index_t channels, B) {
  using op = typename Case::op;
  index_t const n = Test::length;
  auto const make = [&] { return tensor<float, 3>::sequence(Case::shape.order, 1, channels, n); };
  auto x = make(), grad_y = make(), grad_x = make();
  tensor<float, 3> weight({1, 4, channels}, {0, 1, 2}), grad_weight({1, 4, channels}, {0, 1, 2});
  tensor<float, 2> bias({1, channels}, {0, 1}), grad_bias({1, channels}, {0, 1});
  tensor<float, 1> omega({channels}, {0}), grad_omega({channels}, {0});
  auto const in = Test::fill(x, 3), gy = Test::fill(grad_y, 4), w = Test::fill(weight, 5), b = Test::fill(bias, 6),
             o = Test::fill(omega, 7);
  typename op::backward_args const a{.x = x.view(),
                                     .weight = weight.view(),
                                     .bias = bias.view(),
                                     .omega = omega.view(),
                                     .grad_y = grad_y.view(),
                                     .grad_x = grad_x.view(),
                                     .grad_weight = grad_weight.view(),
                                     .grad_bias = grad_bias.view(),
                                     .grad_omega = grad_omega.view()};
  std::vector<double> first;
  for (std::uint64_t const seed : {1, 2}) {
    auto const e = B::make(seed);
    grad_weight.clear(), grad_bias.clear(), grad_omega.clear();
    run_with_workspace<B>(op::backward_workspace(e, a), [&](workspace space) { return op::backward(e, a, space); });
    std::vector<double> all = grad_weight.values();
    for (auto const& more : {grad_bias.values(), grad_omega.values()}) all.insert(all.end(), more.begin(), more.end());
    if (first.empty()) first = all;
    EXPECT_TRUE(all == first) << "not the same for another number of threads";
  }
  for (std::size_t c = 0, many = std::size_t(channels), all = std::size_t(n); c < many; c++) {
    double const* const row = &in[c * all];
    double sums[6] = {};  // taps, bias, omega
    for (std::size_t t = 0; t < all; t++) {
      double v = b[c] + o[c] * row[t];
      for (std::size_t k = 0; k < 4 && k <= t; k++) v += w[k * many + c] * row[t - k];
      double const g = gy[c * all + t] * Test::silu_derivative(v);
      for (std::size_t k = 0; k < 4 && k <= t; k++) sums[k] += g * row[t - k];
      sums[4] += g, sums[5] += g * row[t];
    }
    for (std::size_t k = 0; k < 6; k++)
      ASSERT_NEAR(first[k * many + c], sums[k], allowed * sums[k]) << "sum " << k << " of channel " << c;
  }
}

TYPED_TEST(long_sums, of_a_stack) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  check_stack<along_length, TestFixture>(2, B{});
}
TYPED_TEST(long_sums, of_a_stack_channels_last) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  check_stack<channels_last, TestFixture>(2, B{});
}

TYPED_TEST(long_sums, of_gates) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  using op = gated_fusion<float, gated_fusion_shape{}>;
  index_t const n = this->length;
  tensor<float, 3> z({1, n, 1}, {0, 1, 2}), grad_q({1, n, 1}, {0, 1, 2}), grad_k({1, n, 1}, {0, 1, 2}),
      grad_z({1, n, 1}, {0, 1, 2});
  tensor<float, 1> one({1}, {0}), gq({1}, {0}), mq({1}, {0}), gk({1}, {0}), mk({1}, {0});
  auto const in = this->fill(z, 8), of_q = this->fill(grad_q, 9), of_k = this->fill(grad_k, 10);
  one.assign({1});
  typename op::mix_backward_args const a{.z = z.view(),
                                         .gq = one.view(),
                                         .gk = one.view(),
                                         .grad_q = grad_q.view(),
                                         .grad_k = grad_k.view(),
                                         .grad_z = grad_z.view(),
                                         .grad_gq = gq.view(),
                                         .grad_mq = mq.view(),
                                         .grad_gk = gk.view(),
                                         .grad_mk = mk.view()};
  auto const e = B::make(1);
  run_with_workspace<B>(op::mix_backward_workspace(e, a), [&](workspace w) { return op::mix_backward(e, a, w); });
  double sums[4] = {};
  for (std::size_t t = 0; t < in.size(); t++) {
    double const v = in[t] / (1 + std::exp(-in[t]));
    sums[0] += v * of_q[t], sums[1] += of_q[t], sums[2] += v * of_k[t], sums[3] += of_k[t];
  }
  EXPECT_NEAR(*gq.at(0), sums[0], allowed * sums[0]);
  EXPECT_NEAR(*mq.at(0), sums[1], allowed * sums[1]);
  EXPECT_NEAR(*gk.at(0), sums[2], allowed * sums[2]);
  EXPECT_NEAR(*mk.at(0), sums[3], allowed * sums[3]);
}
// For any number of rows, fp32 sums of the gates end after 1024 terms.
template <element T>
using gates_agent = mix_backward_agent<serial_group, T, default_gated_fusion_tuning<T>::pass(target{0})>;
static_assert(gates_agent<float>::rows_per_item(index_t(1) << 40) == 1024 &&
              gates_agent<bf16>::rows_per_item(33) == 32);

}  // namespace
}  // namespace tcnca::testing
