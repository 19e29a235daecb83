// The comparison of gradients with difference quotients accepts a right gradient, and a wrong one fails.
#include <gtest/gtest-spi.h>

#include "support/gradient.hpp"

namespace tcnca::testing {
namespace {

// Loss x^3 + max(y, 0)^2 at (0.5, 0.7).
struct cubic {
  std::vector<double> x{0.5}, y{0.7};
  gradient_check check;
  cubic(double by_x, double by_y) {
    check.kinks = true;
    check.add("x", x, {by_x}), check.add("y", y, {by_y});
  }
  void run(double noise = 1e-15) {
    check.run([&] { return x[0] * x[0] * x[0] + std::pow(std::max(y[0], 0.0), 2); }, noise);
  }
};

TEST(gradient_check, accepts_the_derivative) {
  cubic c(0.75, 1.4);
  c.run();
  EXPECT_TRUE(c.x[0] == 0.5 && c.y[0] == 0.7) << "the inputs must be as before";
}

TEST(gradient_check, finds_a_wrong_gradient) {
  ::testing::TestPartResultArray failures;
  {
    ::testing::ScopedFakeTestPartResultReporter const reporter(
        ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    cubic c(0.75, 1.4001);
    c.run();
  }
  // All random directions, and every coordinate of y but none of x.
  EXPECT_EQ(failures.size(), 4 + 6);
  for (int i = 0; i < failures.size(); i++) {
    std::string const message = failures.GetTestPartResult(i).message();
    EXPECT_EQ(message.find("x[0]"), std::string::npos) << message;
  }
}

TEST(gradient_check, finds_a_bound_that_says_nothing) {
  ::testing::TestPartResultArray failures;
  {
    ::testing::ScopedFakeTestPartResultReporter const reporter(
        ::testing::ScopedFakeTestPartResultReporter::INTERCEPT_ONLY_CURRENT_THREAD, &failures);
    cubic c(0.75, 1.4);
    c.run(1e-6);
  }
  EXPECT_EQ(failures.size(), 4 + 6 + 6);
  for (int i = 0; i < failures.size(); i++)
    EXPECT_NE(std::string(failures.GetTestPartResult(i).message()).find("says nothing"), std::string::npos);
}

}  // namespace
}  // namespace tcnca::testing
