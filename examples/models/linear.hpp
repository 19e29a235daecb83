// The linear map y = x W + b of each row.
#pragma once
#include "blas.hpp"
#include "elementwise.hpp"
#include "sums.hpp"

namespace tcnca::models {

namespace detail {
/// Writes the bias to each row.
template <class T>
struct bias_rows {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  T const* bias;
  T* y;
  index_t columns;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    T* const out = y + row * columns;
    threads.template each<T>(columns, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      store<W>(out + k, load<W>(bias + k));
    });
  }
};

/// Calls f(part, first row, rows, whether the block is the first of its part) for blocks of rows. The blocks are
/// divided into `parts` of equal size; each part is processed by one thread, in order.
template <class F>
void each_block(int threads, index_t rows, index_t block, index_t parts, F const& f) {
  index_t const blocks = divide_up(rows, block);
#pragma omp parallel for num_threads(threads) schedule(static) if (threads > 1)
  for (index_t p = 0; p < parts; p++) {
    index_t const begin = p * blocks / parts, end = (p + 1) * blocks / parts;
    for (index_t b = begin; b < end; b++) f(p, b * block, min_of(block, rows - b * block), b == begin);
  }
}
}  // namespace detail

/// Weights [in, out] are initialized from N(0, 0.02^2), biases with 0, as in MEGA.
template <class T, class E>
class linear {
 public:
  linear(context<T, E>& c, index_t in, index_t out)
      : in_(in), out_(out), weight_(c.parameter(in * out, {.deviation = 0.02})), bias_(c.parameter(out, {})) {
    c.reserve(column_sums_bytes<T>(c.rows(), out, 1));
    if (in_blocks(c.rows())) c.reserve(size_t(divide_up(c.rows(), block_rows) * out + parts * in * out) * sizeof(T));
  }

  /// x is [rows, in], y is [rows, out].
  void forward(context<T, E> const& c, index_t rows, T const* x, T* y) const { forward(c, rows, x, y, nullptr); }
  /// grad_x is overwritten, or added to if `add`.
  void backward(context<T, E> const& c, index_t rows, T const* x, T const* grad_y, T* grad_x, bool add = false) const {
    backward(c, rows, x, grad_y, grad_x, add, [](E, index_t, index_t) {});
  }
  /// The same for all positions of the batch.
  void forward(context<T, E> const& c, T const* x, T* y) const { forward(c, c.rows(), x, y); }
  void backward(context<T, E> const& c, T const* x, T const* grad_y, T* grad_x, bool add = false) const {
    backward(c, c.rows(), x, grad_y, grad_x, add);
  }
  /// y = silu(before), before = x W + b.
  void forward_silu(context<T, E> const& c, T const* x, T* before, T* y) const { forward(c, c.rows(), x, before, y); }
  /// In place: `grad` holds the gradient of y on entry and that of `before` on return.
  void backward_silu(context<T, E> const& c, T const* x, T const* before, T* grad, T* grad_x, bool add = false) const {
    backward(c, c.rows(), x, grad, grad_x, add, [&](E e, index_t first, index_t count) {
      silu_backward(e, count * out_, before + first * out_, grad + first * out_, grad + first * out_);
    });
  }

 private:
  // On the CPU, many rows are processed in blocks that stay in a core's cache between passes: silu and backward take up
  // to a quarter less time (65536 rows of 64 channels, AVX-512). Gradients of weights are sums over a fixed number of
  // parts, so their bits do not depend on the number of threads.
  static constexpr index_t block_rows = 512, parts = 16;
  bool in_blocks(index_t rows) const { return same<E, cpu> && rows >= parts * block_rows && in_ + out_ <= 1024; }

  /// activated (optional) receives silu(y).
  void forward(context<T, E> const& c, index_t rows, T const* x, T* y, T* activated) const {
    auto const block = [&](E e, int threads, index_t first, index_t count) {
      T* const out = y + first * out_;
      each_row(e, count, out_, detail::bias_rows<T>{c.values[bias_], out, out_});
      detail::multiply(c.backend(), threads, {.m = count, .n = out_, .k = in_, .add = true}, x + first * in_,
                       c.values[weight_], out);
      if (activated != nullptr) silu(e, count * out_, out, activated + first * out_);
    };
    if constexpr (same<E, cpu>) {
      if (in_blocks(rows))
        return detail::each_block(c.threads, rows, block_rows, divide_up(rows, block_rows),
                                  [&](index_t, index_t first, index_t count, bool) { block(cpu{1}, 1, first, count); });
    }
    block(c.executor(), c.threads, 0, rows);
  }
  /// Calls before(executor, row, rows) before these rows of grad_y are read.
  void backward(context<T, E> const& c, index_t rows, T const* x, T const* grad_y, T* grad_x, bool add,
                auto const& before) const {
    T *const grad_weight = c.gradients[weight_], *const grad_bias = c.gradients[bias_];
    product to_weight{.m = in_, .n = out_, .k = rows, .a_transposed = true},
        to_x{.m = rows, .n = in_, .k = out_, .b_transposed = true, .add = add};
    if constexpr (same<E, cpu>) {
      if (in_blocks(rows)) {
        T *const biases = static_cast<T*>(c.scratch().data), *const weights =
                                                                 biases + divide_up(rows, block_rows) * out_;
        detail::each_block(c.threads, rows, block_rows, parts,
                           [=, this, &c, &before](index_t part, index_t first, index_t count, bool fresh) {
                             T const* const grad = grad_y + first * out_;
                             product to_sum = to_weight, to_rows = to_x;
                             to_sum.k = to_rows.m = count, to_sum.add = !fresh;
                             before(cpu{1}, first, count);
                             detail::multiply(c.backend(), 1, to_sum, x + first * in_, grad,
                                              weights + part * in_ * out_);
                             add_rows(count, grad, biases + first / block_rows * out_);
                             detail::multiply(c.backend(), 1, to_rows, grad, c.values[weight_], grad_x + first * in_);
                           });
        add_vectors(c, divide_up(rows, block_rows), out_, biases, grad_bias);
        return add_vectors(c, parts, in_ * out_, weights, grad_weight);
      }
    }
    before(c.executor(), 0, rows);
    multiply(c, to_weight, x, grad_y, grad_weight);
    column_sums(c, rows, out_, matrix_rows<T>{grad_y, out_}, {grad_bias});
    multiply(c, to_x, grad_y, c.values[weight_], grad_x);
  }
  void add_rows(index_t rows, T const* x, T* sum) const {
    std::fill_n(sum, out_, T(0));
    for (index_t r = 0; r < rows; r++) {
#pragma omp simd
      for (index_t k = 0; k < out_; k++) sum[k] += x[r * out_ + k];
    }
  }
  static void add_vectors(context<T, E> const& c, index_t count, index_t columns, T const* x, T* sum) {
    run_pass(c.executor(), divide_up(columns, index_t(256)), detail::segments_pass<T, 1>{x, columns, count, {sum}});
  }

  index_t in_, out_;
  region weight_, bias_;
};

}  // namespace tcnca::models
