// A part of a model as a function with inputs, outputs and gradients, for any executor, with host values.
#pragma once
#include <algorithm>
#include <vector>

#include "../../memory.hpp"
#include "support/backend.hpp"
#include "support/numbers.hpp"

/// The fibers' device: host memory. The number of threads is the seed of the order in which fibers run.
template <>
class tcnca::models::device<tcnca::testing::fibers<>> : public tcnca::models::device<tcnca::cpu> {
 public:
  explicit device(int seed) : device<cpu>(1), seed_(seed) {}
  testing::fibers<> executor() const { return testing::fiber_backend<>::make(std::uint64_t(seed_)); }

 private:
  int seed_;
};

namespace tcnca::testing {

using numbers = std::vector<double>;

/// Numbers in [-1, 1], exact in fp32.
inline numbers some_numbers(size_t count, std::uint64_t seed) {
  random_bits random{seed};
  numbers v(count);
  for (double& x : v) x = double(float(uniform(random)));
  return v;
}

/// The results of a part: y, the gradient of <y, u> for each input, and further values to compare.
struct part_results {
  numbers y;
  std::vector<numbers> gradients;
  numbers more;
};

/// A context, with copies between its memory and fp64 on the host.
template <class T, class E>
struct part_memory {
  models::context<T, E> c;
  part_memory(int threads, index_t batch, index_t length) : c(threads, batch, length) {}

  void put(T* to, numbers const& v) const {
    std::vector<T> const host(v.begin(), v.end());
    c.upload(host.data(), to, host.size());
  }
  void put_integers(models::region r, std::vector<int> const& v) const { c.upload(v.data(), c.integers[r], v.size()); }
  numbers get(T const* from, size_t count) const {
    std::vector<T> host(count);
    c.download(from, host.data(), count);
    return numbers(host.begin(), host.end());
  }
  /// The parameters in the order in which the part requests them, from inputs[first] on.
  void put_parameters(std::vector<numbers> const& inputs, size_t first) const {
    for (size_t p = 0; p < c.parameters().size(); p++) put(c.values[c.parameters()[p].where], inputs[first + p]);
  }
  void get_gradients(std::vector<numbers>& to) const {
    for (auto const& p : c.parameters()) to.push_back(get(c.gradients[p.where], p.where.count));
  }
};

/// Compares gradients of <y, u> with differences of the forward pass, in fp64 on the CPU. `noise`: effect of rounding
/// on <y, u>.
template <class Case>
void expect_slopes(Case const& part) {
  auto inputs = part.inputs();
  numbers const u = part.cotangent();
  part_results const at = part.template run<double, cpu>(inputs, 1);
  ASSERT_EQ(at.y.size(), u.size());
  ASSERT_EQ(at.gradients.size(), inputs.size());
  auto const loss = [&] {
    numbers const y = part.template run<double, cpu>(inputs, 1).y;
    double sum = 0;
    for (size_t i = 0; i < u.size(); i++) sum += y[i] * u[i];
    return sum;
  };
  double magnitude = 1;
  for (size_t i = 0; i < u.size(); i++) magnitude += std::abs(at.y[i] * u[i]);
  double const noise = 0x1p-43 * magnitude, h = 2e-4;  // y has fewer than 2^10 roundings
  for (size_t n = 0; n < inputs.size(); n++) {
    ASSERT_EQ(at.gradients[n].size(), inputs[n].size()) << "input " << n;
    for (size_t i = 0; i < inputs[n].size(); i++) {
      double const saved = inputs[n][i];
      auto const difference = [&](double step) {
        inputs[n][i] = saved + step;
        double const up = loss();
        inputs[n][i] = saved - step;
        double const down = loss();
        inputs[n][i] = saved;
        return (up - down) / (2 * step);
      };
      double const d1 = difference(h), d2 = difference(2 * h), d4 = difference(4 * h);
      double const fine = (4 * d1 - d2) / 3, coarse = (4 * d2 - d4) / 3;  // errors of order h^4, and 16 times that
      double const bound = std::abs(fine - coarse) + 2 * noise / h;
      ASSERT_NEAR(fine, at.gradients[n][i], bound) << part << ": input " << n << ", element " << i;
      ASSERT_LT(bound, 1e-5 * (1 + std::abs(fine))) << part << ": the test has no force";
    }
  }
}

/// Compares with a tolerance of `roundings` units of the tensor's maximum, or of 1.
template <class T>
void expect_near(char const* what, numbers const& ours, numbers const& theirs, double roundings) {
  ASSERT_EQ(ours.size(), theirs.size()) << what;
  double largest = 1;
  for (double v : theirs) largest = std::max(largest, std::abs(v));
  double const unit = std::numeric_limits<T>::epsilon() / 2;
  for (size_t i = 0; i < ours.size(); i++)
    ASSERT_NEAR(ours[i], theirs[i], roundings * unit * largest) << what << "[" << i << "]";
}

/// Compares the forward pass with the case's reference, the rest with the CPU in fp64; and checks for the same bits
/// with any number of threads, in any order.
template <class T, class B, class Case>
void expect_part(Case const& part) {
  using E = typename B::executor;
  SCOPED_TRACE(::testing::Message() << part << ", " << B::name << ", fp" << 8 * sizeof(T));
  auto const inputs = part.inputs();
  part_results const exact = part.template run<double, cpu>(inputs, 1), first = part.template run<T, E>(inputs, 1);
  expect_near<T>("y", first.y, part.naive(inputs), part.roundings());
  for (size_t n = 0; n < exact.gradients.size(); n++)
    expect_near<T>(("gradient of input " + std::to_string(n)).c_str(), first.gradients[n], exact.gradients[n],
                   part.roundings());
  expect_near<T>("more", first.more, exact.more, part.roundings());
  for (int threads = 2; threads <= 4; threads++) {
    part_results const again = part.template run<T, E>(inputs, threads);
    EXPECT_TRUE(again.y == first.y && again.gradients == first.gradients && again.more == first.more)
        << threads << " threads, or another order";
  }
}

}  // namespace tcnca::testing
