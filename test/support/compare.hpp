// Comparison with a reference within its bounds, and bit by bit.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "reference/bounded.hpp"
#include "tensor.hpp"

namespace tcnca::testing {

/// From here on the references compute bounds for tensors of T: fp64 and fp32 computed in themselves, 16-bit types in
/// fp32.
template <class T>
void use_arithmetic_of() {
  using A = accumulate_t<T>;
  using reference::arithmetic;
  constexpr bool is_16bit = !std::is_same_v<T, A>;
  arithmetic::u = std::ldexp(1, -format_of<A>.digits), arithmetic::least = double(std::numeric_limits<A>::min());
  arithmetic::element = is_16bit ? std::ldexp(1, -format_of<T>.digits) : 0;
  arithmetic::tiny = is_16bit ? underflow<T>() : 0;
}

/// Whether each element is within its bound of its value; a NaN never is. The message names the worst element.
template <class T, int Rank>
::testing::AssertionResult within(tensor<T, Rank> const& got, std::vector<double> const& value,
                                  std::vector<double> const& bound) {
  if (got.count() != index_t(value.size()))
    return ::testing::AssertionFailure() << got.count() << " elements, expected " << value.size();
  std::size_t worst = 0, wrong = 0;
  double ratio = -1;
  for (std::size_t i = 0; i < value.size(); i++) {
    double const d = std::abs(to_double(*got.at(index_t(i))) - value[i]), r = d == 0          ? 0
                                                                              : d <= bound[i] ? d / bound[i]
                                                                              : d > bound[i]  ? d / bound[i]
                                                                                              : INFINITY;
    wrong += !(d <= bound[i]);
    if (r > ratio) ratio = r, worst = i;
  }
  if (wrong == 0) return ::testing::AssertionSuccess();
  auto result = ::testing::AssertionFailure();
  result << wrong << " of " << value.size() << " elements are out of bounds; the worst, [";
  std::size_t rest = worst, at[Rank];
  for (int r = Rank - 1; r >= 0; r--)
    at[r] = rest % std::size_t(got.view().extent[r]), rest /= std::size_t(got.view().extent[r]);
  for (int r = 0; r < Rank; r++) result << (r ? ", " : "") << at[r];
  return result << "], is " << to_double(*got.at(index_t(worst))) << ", expected " << value[worst] << " +- "
                << bound[worst];
}

/// The same bits in all elements.
template <class T, int Rank>
::testing::AssertionResult same_bits(tensor<T, Rank> const& a, tensor<T, Rank> const& b) {
  if (a.count() != b.count()) return ::testing::AssertionFailure() << a.count() << " and " << b.count() << " elements";
  for (index_t i = 0; i < a.count(); i++)
    if (std::memcmp(a.at(i), b.at(i), sizeof(T)) != 0)
      return ::testing::AssertionFailure()
             << "element " << i << " is " << to_double(*a.at(i)) << " and " << to_double(*b.at(i));
  return ::testing::AssertionSuccess();
}

}  // namespace tcnca::testing
