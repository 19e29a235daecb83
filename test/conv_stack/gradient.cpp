// Gradients against differences of the forward pass, in fp64: along random directions (<Jv, u> = <v, J'u>) and along single coordinates.
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct conv_stack_gradient : ::testing::Test {
  using T = typename S::T;
  using problem_type = conv_stack_problem<S>;

  problem_type problem{{.batch = 2,
                        .channels = 2,
                        .length = S::op::receptive_field + 9,
                        .position = 3,
                        .state_in = S::causal,
                        .state_out = S::causal},
                       4};

  /// All inputs that have a gradient, one behind the other.
  template <class F>
  static void each_input(problem_type& p, F f) {
    f(p.x), f(p.weight), f(p.bias), f(p.omega), f(p.state_in);
  }
  std::vector<double> gradient() const {
    std::vector<double> all;
    auto const append = [&](auto const& t) {
      auto const v = t.values();
      all.insert(all.end(), v.begin(), v.end());
    };
    append(problem.grad_x), append(problem.grad_weight), append(problem.grad_bias), append(problem.grad_omega),
        append(problem.grad_state_in);
    return all;
  }
  /// <u, results> where the inputs are moved by h along v, with u the gradients of the results.
  double moved(std::vector<double> const& v, double h) {
    std::size_t i = 0;
    auto const move = [&](double by) {
      i = 0;
      each_input(problem, [&](auto const& t) {
        for (index_t k = 0; k < t.count(); k++) *t.at(k) += by * v[i++];
      });
    };
    std::vector<std::vector<double>> saved;
    each_input(problem, [&](auto const& t) { saved.push_back(t.values()); });
    move(h);
    problem.run_forward();
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
    auto const r = reference::forward(problem.stack, problem.p, arithmetic_of<T>());
    double e = 0;
    for (std::size_t i = 0; i < r.y.error.size(); i++) e += std::abs(problem.p.grad_y[i]) * r.y.error[i];
    for (std::size_t i = 0; i < r.state_out.error.size(); i++)
      e += std::abs(problem.p.grad_state_out[i]) * r.state_out.error[i];
    double sum = 0;  // and the sum itself
    for (std::size_t i = 0; i < r.y.value.size(); i++) sum += std::abs(problem.p.grad_y[i] * r.y.value[i]);
    for (std::size_t i = 0; i < r.state_out.value.size(); i++)
      sum += std::abs(problem.p.grad_state_out[i] * r.state_out.value[i]);
    return e + double(r.y.value.size() + r.state_out.value.size()) * arithmetic_of<T>().accumulate * sum;
  }
  void expect_slope(std::vector<double> const& v, std::vector<double> const& grad, double noise) {
    double const h = 1e-4;
    double const d1 = (moved(v, h) - moved(v, -h)) / (2 * h), d2 = (moved(v, 2 * h) - moved(v, -2 * h)) / (4 * h),
                 d4 = (moved(v, 4 * h) - moved(v, -4 * h)) / (8 * h);
    double expected = 0, magnitude = 0;
    for (std::size_t i = 0; i < v.size(); i++) expected += v[i] * grad[i], magnitude += std::abs(v[i] * grad[i]);
    // The central difference is off by c h^2: three quarters of the step from one h to the next show at 2 h, so d2 - d1 is already 3 c h^2.
    double const truncation = std::max(std::abs(d2 - d1), std::abs(d4 - d2) / 4);
    EXPECT_NEAR(d1, expected, truncation + noise / h + double(v.size()) * arithmetic_of<T>().accumulate * magnitude);
    EXPECT_LT(truncation + noise / h, 1e-3 * (1 + magnitude)) << "the test has no force";
  }
};
using types = subjects_on_one<pending<double, plain>, pending<double, list_silu_level>, pending<double, skip_gelu_last>,
                              pending<double, symmetric_last>, pending<double, bidirectional_skip>,
                              pending<double, bidirectional_last>>;
TYPED_TEST_SUITE(conv_stack_gradient, types, subject_name);

TYPED_TEST(conv_stack_gradient, is_the_slope_of_the_forward_pass) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  this->problem.want_gradients();
  this->problem.run_backward();
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

}  // namespace
}  // namespace tcnca::testing
