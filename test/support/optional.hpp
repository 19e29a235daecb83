// Results that a caller may leave out.
#pragma once
#include <gtest/gtest.h>

#include <tuple>
#include <utility>
#include <vector>

namespace tcnca::testing {

/// Expects that each result that is present has the bits that it has with all others, and that a call without any
/// writes nothing. call(args) makes the call; a result is a pair of a member of Args and the address of its tensor.
template <class Args, class Call, class... Results>
void expect_each_is_optional(Args const& args, Call call, Results... results) {
  std::tuple const all(results...);
  constexpr int count = int(sizeof...(Results));
  // f(number, member, tensor) for each result.
  auto const for_each = [&](auto f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (f(int(I), std::get<I>(all).first, *std::get<I>(all).second), ...);
    }
    (std::make_index_sequence<sizeof...(Results)>{});
  };
  auto const clear = [](int, auto, auto& tensor) { tensor.clear(); };
  std::vector<std::vector<unsigned char>> expected, untouched;
  for_each(clear);
  for_each([&](int, auto, auto& tensor) { untouched.push_back(tensor.bits()); });
  call(args);
  for_each([&](int, auto, auto& tensor) { expected.push_back(tensor.bits()); });
  // Only result n, or all but result n; for n = count none or all.
  for (int n = 0; n <= count; n++)
    for (bool const inverted : {false, true}) {
      SCOPED_TRACE(::testing::Message() << (inverted ? "all but result " : "only result ") << n << " of " << count);
      auto const is_present = [&](int i) { return (i == n) != inverted; };
      for_each(clear);
      Args some = args;
      for_each([&](int i, auto member, auto&) {
        if (!is_present(i)) some.*member = {};
      });
      call(some);
      for_each([&](int i, auto, auto& tensor) {
        EXPECT_TRUE(tensor.bits() == (is_present(i) ? expected : untouched)[std::size_t(i)]) << "result " << i;
        EXPECT_TRUE(tensor.intact()) << "written outside of result " << i;
      });
    }
}

}  // namespace tcnca::testing
