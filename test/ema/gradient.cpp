// Gradients of the exponential moving average against differences of the forward pass, in fp64: along random directions
// (<Jv, u> = <v, J'u>) and along single coordinates. And against vectors that JAX computed.
#include "problem.hpp"
#include "support/golden.hpp"

namespace tcnca::testing {
namespace {

using reference::ema::bounded;

struct causal {
  static constexpr char const* name = "causal";
  static constexpr ema_shape shape{.states = 4};
};
struct causal_state {
  static constexpr char const* name = "causal_state";
  static constexpr ema_shape shape{.states = 16};
};
struct bidirectional {
  static constexpr char const* name = "bidirectional";
  static constexpr ema_shape shape{.states = 8, .dir = direction::bidirectional};
};
struct plain {
  static constexpr char const* name = "plain";
  static constexpr ema_shape shape{.states = 4, .skip = false};
};
struct bidirectional_last {
  static constexpr char const* name = "bidirectional_last";
  static constexpr ema_shape shape{
      .states = 2, .dir = direction::bidirectional, .skip = false, .order = layout::batch_length_channels};
};

template <class S>
struct ema_gradient : ::testing::Test {
  using problem_type = ema_problem<S>;
  problem_type problem{
      {.batch = 2, .channels = 2, .length = S::tile + 9, .state_in = S::causal, .state_out = S::causal}, 4};

  /// All inputs that have a gradient, one behind the other.
  template <class F>
  static void each_input(problem_type& p, F f) {
    f(p.x), f(p.delta), f(p.alpha), f(p.beta), f(p.gamma), f(p.omega), f(p.state_in);
  }
  std::vector<double> gradient() const {
    std::vector<double> all;
    auto const append = [&](auto const& t) {
      auto const v = t.values();
      all.insert(all.end(), v.begin(), v.end());
    };
    append(problem.grad_x), append(problem.grad_delta), append(problem.grad_alpha), append(problem.grad_beta),
        append(problem.grad_gamma);
    append(problem.grad_omega), append(problem.grad_state_in);
    return all;
  }
  /// <u, results> where the inputs are moved by h along v, with u the gradients of the results.
  double moved(std::vector<double> const& v, double h) {
    std::vector<std::vector<double>> saved;
    std::size_t i = 0;
    each_input(problem, [&](auto& t) {
      saved.push_back(t.values());
      for (index_t k = 0; k < t.count(); k++) *t.at(k) += h * v[i++];
    });
    problem.run_forward(1);
    double sum = 0;
    for (index_t k = 0; k < problem.y.count(); k++) sum += problem.p.grad_y[std::size_t(k)] * *problem.y.at(k);
    for (index_t k = 0; k < problem.state_out.count(); k++)
      sum += problem.p.grad_state_out[std::size_t(k)] * *problem.state_out.at(k);
    auto s = saved.begin();
    each_input(problem, [&](auto& t) { t.assign(*s++); });
    return sum;
  }
  /// How far rounding may move such a sum.
  double rounding() const {
    bounded::u = 0x1p-53;
    auto const r = reference::ema::forward<bounded>(problem.what, problem.p);
    bounded sum;
    for (std::size_t i = 0; i < r.y.size(); i++) sum = sum + r.y[i] * bounded(problem.p.grad_y[i]);
    for (std::size_t i = 0; i < problem.p.grad_state_out.size(); i++)
      sum = sum + r.state_out[i] * bounded(problem.p.grad_state_out[i]);
    return sum.e;
  }
  void expect_slope(std::vector<double> const& v, std::vector<double> const& grad, double noise) {
    double const h = 1e-4;
    double const d1 = (moved(v, h) - moved(v, -h)) / (2 * h), d2 = (moved(v, 2 * h) - moved(v, -2 * h)) / (4 * h),
                 d4 = (moved(v, 4 * h) - moved(v, -4 * h)) / (8 * h);
    double expected = 0, magnitude = 0;
    for (std::size_t i = 0; i < v.size(); i++) expected += v[i] * grad[i], magnitude += std::abs(v[i] * grad[i]);
    // The central difference is off by c h^2; d2 - d1 is 3 c h^2.
    double const truncation = std::max(std::abs(d2 - d1), std::abs(d4 - d2) / 4);
    EXPECT_NEAR(d1, expected, truncation + noise / h + double(v.size()) * 0x1p-53 * magnitude);
    EXPECT_LT(truncation + noise / h, 1e-3 * (1 + magnitude)) << "the test has no force";
  }
};

template <class B>
using subjects_of = std::tuple<ema_subject<B, double, causal>, ema_subject<B, double, plain>,
                               ema_subject<B, double, bidirectional>, ema_subject<B, double, bidirectional_last>>;
template <class... S>
auto list_of(std::tuple<S...>) -> ::testing::Types<S...>;
#if defined(__CUDACC__)
using types = decltype(list_of(subjects_of<cuda_backend>{}));
#else
using types = decltype(list_of(std::tuple_cat(subjects_of<cpu_backend>{}, subjects_of<fiber_backend<32>>{})));
#endif
TYPED_TEST_SUITE(ema_gradient, types, ema_subject_name);

TYPED_TEST(ema_gradient, is_the_slope_of_the_forward_pass) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  this->problem.run_backward(1);
  auto const grad = this->gradient();
  double const noise = this->rounding();
  random_bits r{8};
  for (int i = 0; i < 4; i++) {  // everything at once
    std::vector<double> v(grad.size());
    for (double& e : v) e = uniform(r);
    this->expect_slope(v, grad, noise);
  }
  std::size_t begin = 0;
  this->each_input(this->problem, [&](auto const& t) {  // some coordinates of each input
    for (int i = 0; i < 6 && t.count() > 0; i++) {
      std::vector<double> v(grad.size());
      v[begin + std::size_t(r.below(int(t.count())))] = 1;
      this->expect_slope(v, grad, noise);
    }
    begin += std::size_t(t.count());
  });
}

golden_case const* find(std::string const& name) {
  static std::vector<golden_case> const all = read_golden("ema.txt");
  for (auto const& c : all)
    if (c.name == name) return &c;
  return nullptr;
}

template <class S>
struct ema_golden : ::testing::Test {};
template <class B>
using golden_of =
    std::tuple<ema_subject<B, double, causal>, ema_subject<B, float, causal_state>,
               ema_subject<B, double, bidirectional>, ema_subject<B, bf16, bidirectional>, ema_subject<B, fp16, plain>>;
#if defined(__CUDACC__)
using golden_types = decltype(list_of(golden_of<cuda_backend>{}));
#else
using golden_types = decltype(list_of(std::tuple_cat(golden_of<cpu_backend>{}, golden_of<fiber_backend<>>{})));
#endif
TYPED_TEST_SUITE(ema_golden, golden_types, ema_subject_name);

TYPED_TEST(ema_golden, agrees_with_jax) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::string const name = S::name();
  golden_case const* const g = find(name.substr(name.find('_', name.find('_') + 1) + 1));
  ASSERT_TRUE(g) << "no golden case for " << name;
  auto const& extent = g->tensors.at("x").extent;
  ema_problem<S> problem({.batch = extent[0],
                          .channels = extent[1],
                          .length = extent[2],
                          .state_in = g->has("state_in"),
                          .state_out = g->has("state_out")},
                         1);
  auto const give = [&](char const* what, auto& t, std::vector<double>& values) {
    if (t.present()) t.assign(values = g->values(what));
  };
  auto& p = problem.p;
  give("x", problem.x, p.x), give("delta", problem.delta, p.delta), give("alpha", problem.alpha, p.alpha),
      give("beta", problem.beta, p.beta);
  give("gamma", problem.gamma, p.gamma), give("omega", problem.omega, p.omega),
      give("grad_y", problem.grad_y, p.grad_y);
  give("state_in", problem.state_in, p.state_in), give("grad_state_out", problem.grad_state_out, p.grad_state_out);
  problem.run_forward(1);
  problem.run_backward(1);
  // The reference's bounds are the operation's; the reference itself must be JAX's numbers, to what an FFT in fp64 gives.
  problem.expect_forward();
  problem.expect_backward();
  auto const expect = [&](char const* what, std::vector<double> const& ours) {
    if (!g->has(what)) return;
    auto const& theirs = g->values(what);
    ASSERT_EQ(theirs.size(), ours.size()) << what;
    double largest = 1;
    for (double v : theirs) largest = std::max(largest, std::abs(v));
    for (std::size_t i = 0; i < ours.size(); i++) ASSERT_NEAR(ours[i], theirs[i], 1e-13 * largest) << what << " " << i;
  };
  auto const f = reference::ema::forward<double>(problem.what, p);
  auto const b = reference::ema::backward<double>(problem.what, p);
  expect("y", f.y), expect("state_out", f.state_out), expect("grad_x", b.x), expect("grad_delta", b.delta),
      expect("grad_alpha", b.alpha);
  expect("grad_beta", b.beta), expect("grad_gamma", b.gamma), expect("grad_omega", b.omega),
      expect("grad_state_in", b.state_in);
  expect("kernel", reference::ema::kernel<double>(problem.what, p));
}

}  // namespace
}  // namespace tcnca::testing
