// The linear map y = x W + b of every position.
#pragma once
#include "blas.hpp"
#include "elementwise.hpp"

namespace tcnca::models {

/// Weights [in, out] begin as N(0, 0.02^2), biases as 0 (MEGA's choice).
template <class T, class E>
class linear {
 public:
  linear(context<T, E>& c, index in, index out)
      : in_(in), out_(out), weight_(c.parameter(in * out, {.deviation = 0.02})), bias_(c.parameter(out, {})) {}

  void forward(context<T, E> const& c, T const* x, T* y) const {
    index const rows = c.rows(), out = out_;
    T const* const bias = c.values[bias_];
#pragma omp parallel for num_threads(c.threads) schedule(static)
    for (index r = 0; r < rows; r++) std::copy_n(bias, out, y + r * out);
    multiply(c.threads, {.m = rows, .n = out, .k = in_, .add = true}, x, c.values[weight_], y);
  }
  /// grad_x is overwritten, or with `add` added to.
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add = false) const {
    index const rows = c.rows(), out = out_;
    multiply(c.threads, {.m = in_, .n = out, .k = rows, .a_transposed = true}, x, grad_y, c.gradients[weight_]);
    column_sums(c.threads, rows, out, c.gradients[bias_], [=](index r, index k) { return grad_y[r * out + k]; });
    multiply(c.threads, {.m = rows, .n = in_, .k = out, .b_transposed = true, .add = add}, grad_y, c.values[weight_], grad_x);
  }

 private:
  index in_, out_;
  region weight_, bias_;
};

}  // namespace tcnca::models
