// Activations and their derivatives against fp64, within the rounding that the reference grants them; at the ends of
// the range, too.
#include <gtest/gtest.h>

#include <tcnca/block/activation.hpp>

#include "reference/conv_stack.hpp"
#include "support/numbers.hpp"

namespace tcnca::testing {
namespace {

template <class T, activation Ours, int W>
void check(reference::activation theirs) {
  double const u = std::ldexp(1, -format_of<T>.digits), tiny = 64 * double(std::numeric_limits<T>::min());
  double worst_value = 0, worst_slope = 0;
  auto const at = [&](T const(&x)[W]) {
    auto const got = activate<Ours>(load<W>(x));
    for (int i = 0; i < W; i++) {
      double const v = x[i], m = std::abs(v);
      // Where e^x leaves the range of T, what is lost is below the least normal number, times x.
      double const lost = tiny * (1 + m);
      double const value_error = std::abs(double(got.value.lane(i)) - reference::detail::value(theirs, v));
      double const derivative_error =
          std::abs(double(got.derivative.lane(i)) - reference::detail::derivative(theirs, v));
      double const value_bound = u * reference::detail::value_rounding(theirs, v) + lost,
                   derivative_bound = u * reference::detail::derivative_rounding(theirs, v) + lost * (1 + m);
      ASSERT_LE(value_error, value_bound) << "value at " << v;
      ASSERT_LE(derivative_error, derivative_bound) << "derivative at " << v;
      worst_value = std::max(worst_value, value_error / value_bound),
      worst_slope = std::max(worst_slope, derivative_error / derivative_bound);
    }
  };
  random_bits r{1};
  int const rounds = sizeof(T) == 8 ? 20000 : 100000;
  for (int i = 0; i < rounds; i++) {
    T x[W];
    for (T& e : x)
      e = T(uniform(r) * (i % 4 == 0 ? 100 : i % 4 == 1 ? 12 : i % 4 == 2 ? 1 : std::ldexp(1, between(r, -60, 6))));
    at(x);
    if (::testing::Test::HasFatalFailure()) return;
  }
  std::printf("%s, activation %d: at most %.2f of the bound, derivative %.2f\n", name_of<T>, int(Ours), worst_value,
              worst_slope);
  for (double const special : {0.0, -0.0, 87.0, -87.0, 88.0, -88.0, 89.0, -89.0, 104.0, -104.0, 1000.0, -1000.0}) {
    T x[W];
    for (T& e : x) e = T(special);
    at(x);
    if (::testing::Test::HasFatalFailure()) return;
  }
  T nan[W];
  for (T& e : nan) e = T(NAN);
  EXPECT_TRUE(std::isnan(activate<Ours>(load<W>(nan)).value.lane(0))) << "a NaN must stay one";
}

template <class T>
struct activations : ::testing::Test {
  template <activation Ours>
  static void check_widths(reference::activation theirs) {
    check<T, Ours, 1>(theirs);
    check<T, Ours, 64 / sizeof(T)>(theirs);
  }
};
using types = ::testing::Types<float, double>;
struct type_name {
  template <class T>
  static std::string GetName(int) {
    return name_of<T>;
  }
};
TYPED_TEST_SUITE(activations, types, type_name);

TYPED_TEST(activations, none) { this->template check_widths<activation::none>(reference::activation::none); }
TYPED_TEST(activations, relu) { this->template check_widths<activation::relu>(reference::activation::relu); }
TYPED_TEST(activations, silu) { this->template check_widths<activation::silu>(reference::activation::silu); }
TYPED_TEST(activations, gelu_erf) {
  this->template check_widths<activation::gelu_erf>(reference::activation::gelu_erf);
}
TYPED_TEST(activations, gelu_tanh) {
  this->template check_widths<activation::gelu_tanh>(reference::activation::gelu_tanh);
}
TYPED_TEST(activations, tanh) { this->template check_widths<activation::tanh>(reference::activation::tanh); }

}  // namespace
}  // namespace tcnca::testing
