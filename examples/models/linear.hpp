// The linear map y = x W + b of every row.
#pragma once
#include "blas.hpp"
#include "elementwise.hpp"
#include "sums.hpp"

namespace tcnca::models {

namespace detail {
/// Every row is the bias.
template <class T>
struct bias_rows {
  using number = T;
  static constexpr int near = 0;
  T const* bias;
  T* y;
  index columns;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index row, bool beyond, T*) const {
    if (beyond) return;
    T* const out = y + row * columns;
    threads.template each<T>(columns, [&](auto w, index k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      store<W>(out + k, load<W>(bias + k));
    });
  }
};
}  // namespace detail

/// Weights [in, out] begin as N(0, 0.02^2), biases as 0 (MEGA's choice).
template <class T, class E>
class linear {
 public:
  linear(context<T, E>& c, index in, index out)
      : in_(in), out_(out), weight_(c.parameter(in * out, {.deviation = 0.02})), bias_(c.parameter(out, {})) {
    c.reserve(column_sums_bytes<T>(c.rows(), out, 1));
  }

  /// x [rows, in], y [rows, out].
  void forward(context<T, E> const& c, index rows, T const* x, T* y) const {
    each_row(c.executor(), rows, out_, detail::bias_rows<T>{c.values[bias_], y, out_});
    multiply(c, {.m = rows, .n = out_, .k = in_, .add = true}, x, c.values[weight_], y);
  }
  /// grad_x is overwritten, or with `add` added to.
  void backward(context<T, E> const& c, index rows, T const* x, T const* grad_y, T* grad_x, bool add = false) const {
    multiply(c, {.m = in_, .n = out_, .k = rows, .a_transposed = true}, x, grad_y, c.gradients[weight_]);
    column_sums(c, rows, out_, matrix_rows<T>{grad_y, out_}, {c.gradients[bias_]});
    multiply(c, {.m = rows, .n = in_, .k = out_, .b_transposed = true, .add = add}, grad_y, c.values[weight_], grad_x);
  }
  /// Of every position.
  void forward(context<T, E> const& c, T const* x, T* y) const { forward(c, c.rows(), x, y); }
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add = false) const {
    backward(c, c.rows(), x, grad_y, grad_x, add);
  }

 private:
  index in_, out_;
  region weight_, bias_;
};

}  // namespace tcnca::models
