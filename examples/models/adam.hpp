// Adam with decoupled weight decay and gradients clipped by their common norm.
#pragma once
#include <cmath>
#include <vector>

#include "memory.hpp"

namespace tcnca::models {

struct adam_config {
  double beta1 = 0.9, beta2 = 0.98, epsilon = 1e-8;
  double decay = 0.01;  ///< of all parameters: a step takes rate * decay of each
  double clip = 1;      ///< the largest norm of all gradients together; 0: any
};

/// Moments lie as the parameters do. Sums are taken in a fixed order.
template <class T, class E>
class adam {
 public:
  /// After `commit`.
  adam(context<T, E> const& c, adam_config const& config) : config_(config), partial_((c.gradients.count() + block - 1) / block) {
    index const count = index(c.gradients.count());
    first_.take(count), second_.take(count);
    first_.commit(), second_.commit();
  }

  /// Returns the norm of the gradients before they were clipped. Where it is not finite, nothing is changed.
  double step(context<T, E> const& c, double rate) {
    T const* const g = c.gradients.data();
    index const count = index(c.gradients.count()), blocks = index(partial_.size());
    double* const partial = partial_.data();
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (index b = 0; b < blocks; b++) {
      double sum = 0;
      for (index i = b * block; i < std::min(count, (b + 1) * block); i++) sum += double(g[i]) * double(g[i]);
      partial[b] = sum;
    }
    double square = 0;
    for (double p : partial_) square += p;
    double const norm = std::sqrt(square), shrink = config_.clip > 0 && norm > config_.clip ? config_.clip / norm : 1;
    if (!std::isfinite(norm)) return norm;
    steps_++;

    T const b1 = T(config_.beta1), b2 = T(config_.beta2), scale = T(shrink), keep = T(1 - rate * config_.decay), eps = T(config_.epsilon);
    T const step_size = T(rate / (1 - std::pow(config_.beta1, double(steps_)))), unbias = T(1 / (1 - std::pow(config_.beta2, double(steps_))));
    T *const value = c.values.data(), *const first = first_.data(), *const second = second_.data();
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (index i = 0; i < count; i++) {
      T const gradient = scale * g[i];
      first[i] = b1 * first[i] + (1 - b1) * gradient;
      second[i] = b2 * second[i] + (1 - b2) * gradient * gradient;
      value[i] = keep * value[i] - step_size * first[i] / (std::sqrt(second[i] * unbias) + eps);
    }
    return norm;
  }

  /// What is remembered from step to step: moments, as the parameters lie, and the number of steps.
  T* first() { return first_.data(); }
  T* second() { return second_.data(); }
  index& steps() { return steps_; }
  size memory_bytes() const { return (first_.count() + second_.count()) * sizeof(T) + partial_.size() * sizeof(double); }

 private:
  static constexpr index block = 4096;
  adam_config config_;
  pool<T> first_, second_;
  std::vector<double> partial_;
  index steps_ = 0;
};

}  // namespace tcnca::models
