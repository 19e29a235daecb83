// Conversions between the element types and their accumulate type, all bit patterns, against arithmetic on exponents
// and digits.
#include <gtest/gtest.h>

#include <tcnca/block/pack.hpp>
#include <tcnca/core/status.hpp>

#include "support/numbers.hpp"

namespace tcnca::testing {
namespace {

template <class T>
struct numeric : ::testing::Test {};
using sixteen_bits = ::testing::Types<bf16, fp16>;
struct type_name {
  template <class T>
  static std::string GetName(int) {
    return name_of<T>;
  }
};
TYPED_TEST_SUITE(numeric, sixteen_bits, type_name);

bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

TYPED_TEST(numeric, every_element_widens_exactly) {
  for (unsigned bits = 0; bits < 65536; bits++) {
    TypeParam const x{std::uint16_t(bits)};
    ASSERT_TRUE(same(double(to_accumulate(x)), to_double(x))) << bits;
  }
}

TYPED_TEST(numeric, round_trip_is_exact) {
  for (unsigned bits = 0; bits < 65536; bits++) {
    TypeParam const x{std::uint16_t(bits)};
    if (!std::isnan(to_double(x))) ASSERT_EQ(from_accumulate<TypeParam>(to_accumulate(x)).bits, bits);
    else ASSERT_TRUE(std::isnan(to_double(from_accumulate<TypeParam>(to_accumulate(x)))));
  }
}

// Between two neighbouring numbers: just below the midpoint, the midpoint, just above it.
TYPED_TEST(numeric, rounds_to_nearest_even) {
  auto const expect = [](float x) {
    ASSERT_TRUE(same(to_double(from_accumulate<TypeParam>(x)), to_double(from_double<TypeParam>(x))))
        << std::hexfloat << x;
  };
  for (unsigned bits = 0; bits < 0x7fff; bits++) {
    double const a = to_double(TypeParam{std::uint16_t(bits)}), b = to_double(TypeParam{std::uint16_t(bits + 1)});
    if (std::isnan(a) || std::isnan(b)) continue;
    float const middle =
        float(std::isinf(b) ? 2 * a - to_double(TypeParam{std::uint16_t(bits - 1)}) / 2 - a / 2 : (a + b) / 2);
    for (float const x : {middle, std::nextafter(middle, 0.0f), std::nextafter(middle, INFINITY)})
      expect(x), expect(-x);
  }
  random_bits r{1};
  for (int i = 0; i < 1000000; i++) {
    std::uint32_t const u = std::uint32_t(r());
    float x;
    std::memcpy(&x, &u, 4);
    expect(x);
  }
}

// The vector conversions agree with those of one element.
template <class T, int W>
void packs_agree() {
  random_bits r{2};
  for (int i = 0; i < 20000; i++) {
    float in[W];
    T out[W];
    for (float& x : in) {
      std::uint32_t const u = std::uint32_t(r());
      std::memcpy(&x, &u, 4);
      if (i % 2) x = std::ldexp(1.0f + float(r() % 65536) / 65536, between(r, -30, 20));
    }
    store<W>(out, load<W>(in));
    auto const back = load<W>(out);
    for (int k = 0; k < W; k++) {
      ASSERT_TRUE(same(to_double(out[k]), to_double(from_double<T>(in[k])))) << std::hexfloat << in[k];
      ASSERT_TRUE(same(double(back.lane(k)), to_double(out[k])));
    }
  }
}
TYPED_TEST(numeric, vector_and_element_conversions_agree) {
  packs_agree<TypeParam, 2>();
  packs_agree<TypeParam, 4>();
  packs_agree<TypeParam, 8>();
  packs_agree<TypeParam, 16>();
}

template <class T>
void epsilon_is_half_a_step_at_1() {
  double const u = epsilon<T>;
  EXPECT_EQ(to_double(from_double<T>(1 + u)), 1) << "rounds to even";
  EXPECT_EQ(to_double(from_double<T>(1 + 2 * u)), 1 + 2 * u);
  EXPECT_EQ(to_double(from_double<T>(1 + 1.5 * u)), 1 + 2 * u);
}
TEST(numeric, epsilon) {
  epsilon_is_half_a_step_at_1<float>();
  epsilon_is_half_a_step_at_1<bf16>();
  epsilon_is_half_a_step_at_1<fp16>();
}

TEST(status, every_code_has_its_own_sentence) {
  std::vector<std::string> seen;
  for (int code = 0; code <= int(status_code::launch_failed); code++) {
    std::string const s = to_string(status(status_code(code)));
    EXPECT_NE(s, "the status code is unknown");
    EXPECT_EQ(std::count(seen.begin(), seen.end(), s), 0);
    seen.push_back(s);
  }
  EXPECT_EQ(to_string(status(status_code(1000))), std::string("the status code is unknown"));
  EXPECT_TRUE(status().ok());
}

}  // namespace
}  // namespace tcnca::testing
