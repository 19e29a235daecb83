// Mean over the positions of a sequence.
#pragma once
#include "sums.hpp"

namespace tcnca::models {

namespace detail {

/// One item: a block of columns of one sequence.
template <class T>
struct mean_pooling_forward {
  using value_type = T;
  static constexpr int shared_per_thread = 1;
  index_t length, channels;
  index_t const* lengths;
  T const* x;
  T* y;
  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, T* memory) const {
    constexpr index_t block = summed_columns<Group, T>;
    index_t const blocks = divide_up(channels, block), b = item / blocks,
                  count = lengths == nullptr ? length : lengths[b];
    T const weight = 1 / T(max_of(index_t(1), count));
    sum_rows<T>(group, memory, b * length, b * length + count, item % blocks * block, channels,
                matrix_rows<T>{x, channels},
                [&](int, index_t c, T sum) TCNCA_INLINE { y[b * channels + c] = sum * weight; });
  }
};

template <class T>
struct mean_pooling_backward {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t length, channels;
  index_t const* lengths;
  T const* grad_y;
  T* grad_x;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    index_t const b = row / length, count = lengths == nullptr ? length : lengths[b];
    T const weight = row - b * length < count ? 1 / T(count) : T(0);
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      store<W>(grad_x + row * channels + k, load<W>(grad_y + b * channels + k) * broadcast<W>(weight));
    });
  }
};

}  // namespace detail

/// y [batch, channels] = the mean of x [batch, length, channels] over the valid positions (context::lengths); 0 if
/// there are none.
template <class T, class E>
void mean_pooling(context<T, E> const& c, index_t channels, T const* x, T* y) {
  index_t const blocks = divide_up(channels, index_t(detail::summed_columns<pass_group<E>, T>));
  run_pass(c.executor(), c.batch * blocks, detail::mean_pooling_forward<T>{c.length, channels, c.lengths(), x, y});
}
/// Computes grad_x from grad_y; positions that are not valid get 0.
template <class T, class E>
void mean_pooling_backward(context<T, E> const& c, index_t channels, T const* grad_y, T* grad_x) {
  each_row(c.executor(), c.rows(), channels,
           detail::mean_pooling_backward<T>{c.length, channels, c.lengths(), grad_y, grad_x});
}

}  // namespace tcnca::models
