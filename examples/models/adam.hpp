// Adam with decoupled weight decay and gradients clipped by their common norm.
#pragma once
#include <cmath>

#include "elementwise.hpp"
#include "sums.hpp"

namespace tcnca::models {

struct adam_config {
  double beta1 = 0.9, beta2 = 0.98, epsilon = 1e-8;
  double decay = 0.01;  ///< of all parameters: a step subtracts rate * decay * value
  double clip = 1;      ///< upper bound of the norm of all gradients together; 0: none
};

namespace detail {

/// Gradients per block of the sum of squares.
constexpr index_t square_block = 4096;
template <class T>
struct square_term {
  using value_type = double;
  T const* x;
  TCNCA_HOST_DEVICE double operator()(index_t i) const { return double(x[i]) * double(x[i]); }
};

template <class T>
struct adam_op {
  T beta1, beta2, epsilon, scale, keep, step_size, unbias;
  T const* gradient;
  T *value, *first, *second;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t i) const {
    auto const g = load<W>(gradient + i) * broadcast<W>(scale);
    auto const m = broadcast<W>(beta1) * load<W>(first + i) + broadcast<W>(1 - beta1) * g;
    auto const v = broadcast<W>(beta2) * load<W>(second + i) + broadcast<W>(1 - beta2) * g * g;
    auto const root = map(v * broadcast<W>(unbias), [](T a) TCNCA_INLINE { return std::sqrt(a); });
    store<W>(first + i, m), store<W>(second + i, v);
    store<W>(value + i,
             broadcast<W>(keep) * load<W>(value + i) - broadcast<W>(step_size) * m / (root + broadcast<W>(epsilon)));
  }
};

}  // namespace detail

/// Moments have the layout of the parameters. Sums are taken in a fixed order.
template <class T, class E>
class adam {
 public:
  /// Call after the context's `commit`.
  adam(context<T, E> const& c, adam_config const& config) : config_(config) {
    index_t const count = index_t(c.gradients.count());
    first_.take(count), second_.take(count);
    partial_ = totals_.take(divide_up(count, detail::square_block)), square_ = totals_.take(1);
    first_.commit(), second_.commit(), totals_.commit();
  }

  /// Returns the norm of the gradients before clipping. If the norm or the loss is not finite, nothing changes;
  /// otherwise parameters, moments and the context's statistics are updated.
  double step(context<T, E> const& c, double rate, double loss = 0) {
    E const e = c.executor();
    index_t const count = index_t(c.gradients.count()), blocks = index_t(partial_.count);
    double *const partial = totals_[partial_], *const square = totals_[square_];
    using term = detail::square_term<T>;
    run_pass(e, blocks, detail::sum_pass<term, double>{term{c.gradients.data()}, count, detail::square_block, partial});
    detail::sum_terms(e, blocks, detail::value_term<double>{partial}, square);
    double norm = 0;
    c.download(square, &norm, 1);
    norm = std::sqrt(norm);
    if (!std::isfinite(norm) || !std::isfinite(loss)) return norm;

    steps_++;
    double const shrink = config_.clip > 0 && norm > config_.clip ? config_.clip / norm : 1;
    detail::adam_op<T> op{};
    op.beta1 = T(config_.beta1), op.beta2 = T(config_.beta2), op.epsilon = T(config_.epsilon), op.scale = T(shrink);
    op.keep = T(1 - rate * config_.decay);
    op.step_size = T(rate / (1 - std::pow(config_.beta1, double(steps_)))),
    op.unbias = T(1 / (1 - std::pow(config_.beta2, double(steps_))));
    op.gradient = c.gradients.data(), op.value = c.values.data(), op.first = first_.data(), op.second = second_.data();
    each_element<T>(e, count, op);
    copy(e, index_t(c.statistics.count()), c.next_statistics.data(), c.statistics.data());
    return norm;
  }

  /// State that persists between steps: the moments (in the executor's memory, laid out as the parameters) and the
  /// number of steps.
  T* first() const { return first_.data(); }
  T* second() const { return second_.data(); }
  index_t& steps() { return steps_; }
  /// Bytes allocated.
  size_t bytes() const { return first_.bytes() + second_.bytes() + totals_.bytes(); }

 private:
  adam_config config_;
  pool<T, E> first_, second_;
  pool<double, E> totals_;
  region partial_, square_;
  index_t steps_ = 0;
};

}  // namespace tcnca::models
