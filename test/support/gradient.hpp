// Gradients against difference quotients of the forward pass, in fp64. The loss is <u, results> with u the gradients of
// the results, so its derivative along v is <v, gradients of the inputs>.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "reference/bounded.hpp"
#include "tensor.hpp"

namespace tcnca::testing {

/// Adds the results' terms of a loss to a sum: of values for the loss, of bounded numbers for its rounding error. `u`:
/// NaN where a result does not count (slots of a state that are not written).
template <class N, class Results>
void add_loss(reference::sum<N>& loss, std::vector<double> const& u, Results const& results) {
  for (std::size_t i = 0; i < u.size(); i++)
    if (!std::isnan(u[i])) loss.add(N(u[i]), N(results[i]));
}
inline void add_loss(reference::sum<double>& loss, std::vector<double> const& u, tensor<double, 3> const& results) {
  if (results.present()) add_loss(loss, u, results.values());
}

/// Compares gradients with difference quotients: along random directions in all inputs at once, and along single
/// coordinates of each input.
class gradient_check {
 public:
  int directions = 4, coordinates = 6;
  /// Whether the second derivative jumps somewhere (relu, relu2). The error of a central difference there is of order
  /// h, not h^2.
  bool kinks = false;

  void add(std::string const& name, std::vector<double*> const& elements, std::vector<double> const& gradient) {
    ASSERT_EQ(elements.size(), gradient.size()) << name;
    inputs_.push_back({name, elements_.size(), elements.size()});
    elements_.insert(elements_.end(), elements.begin(), elements.end());
    gradient_.insert(gradient_.end(), gradient.begin(), gradient.end());
  }
  void add(std::string const& name, std::vector<double>& input, std::vector<double> const& gradient) {
    std::vector<double*> elements;
    for (double& x : input) elements.push_back(&x);
    add(name, elements, gradient);
  }
  template <int Rank>
  void add(std::string const& name, tensor<double, Rank> const& input, tensor<double, Rank> const& gradient) {
    std::vector<double*> elements;
    for (index_t i = 0; i < input.count(); i++) elements.push_back(input.at(i));
    add(name, elements, gradient.values());
  }

  /// loss() evaluates the forward pass; `noise` bounds the rounding error of its value.
  void run(std::function<double()> const& loss, double noise, std::uint64_t seed = 8) const {
    random_bits r{seed};
    std::vector<double> v(elements_.size());
    for (int i = 0; i < directions; i++) {
      for (double& e : v) e = uniform(r);
      expect_derivative(loss, v, noise, "all inputs");
    }
    for (range const& in : inputs_)
      for (int i = 0; i < coordinates && in.size > 0; i++) {
        std::fill(v.begin(), v.end(), 0);
        std::size_t const k = std::size_t(r.below(int(in.size)));
        v[in.begin + k] = 1;
        expect_derivative(loss, v, noise, in.name + "[" + std::to_string(k) + "]");
      }
  }

 private:
  struct range {
    std::string name;
    std::size_t begin, size;
  };
  std::vector<range> inputs_;
  std::vector<double*> elements_;
  std::vector<double> gradient_;

  void expect_derivative(std::function<double()> const& loss, std::vector<double> const& v, double noise,
                         std::string const& where) const {
    std::vector<double> at;
    for (double const* x : elements_) at.push_back(*x);
    auto const loss_at = [&](double h) {
      for (std::size_t i = 0; i < v.size(); i++) *elements_[i] = at[i] + h * v[i];
      return loss();
    };
    auto const quotient = [&](double h) { return (loss_at(h) - loss_at(-h)) / (2 * h); };
    double const h = 1e-4, d1 = quotient(h), d2 = quotient(2 * h), d4 = quotient(4 * h);
    for (std::size_t i = 0; i < v.size(); i++) *elements_[i] = at[i];
    double expected = 0, magnitude = 0;
    for (std::size_t i = 0; i < v.size(); i++)
      expected += v[i] * gradient_[i], magnitude += std::abs(v[i] * gradient_[i]);
    // The error of d1 is c h^2, and d2 - d1 is 3 c h^2. At a kink it is c h, and d2 - d1 is at least c h / 2.
    double const truncation = (kinks ? 2 : 1) * std::max(std::abs(d2 - d1), std::abs(d4 - d2) / 4);
    EXPECT_NEAR(d1, expected, truncation + noise / h + double(v.size()) * 0x1p-53 * magnitude) << where;
    EXPECT_LT(truncation + noise / h, (kinks ? 2e-3 : 1e-3) * (1 + magnitude)) << where << ": the bound says nothing";
  }
};

}  // namespace tcnca::testing
