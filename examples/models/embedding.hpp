// Embedding of tokens.
#pragma once
#include <cmath>

#include "model.hpp"
#include "sums.hpp"

namespace tcnca::models {

namespace detail {

template <class T>
struct embedding_table_forward {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t channels;
  int const* tokens;
  T const* table;
  T* y;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    T const* const from = table + tokens[row] * channels;
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      store<W>(y + row * channels + k, load<W>(from + k));
    });
  }
};

/// Terms of column_sums: the gradients of all positions with a given token.
template <class T>
struct rows_of_token {
  static constexpr int kinds = 1;
  index_t channels;
  int const* tokens;
  T const* grad_y;
  int token;
  TCNCA_HOST_DEVICE bool counts(index_t row) const { return tokens[row] == token; }
  template <int W>
  TCNCA_HOST_DEVICE void add(pack<T, W>* sums, index_t r, index_t c) const {
    sums[0] = sums[0] + load<W>(grad_y + r * channels + c);
  }
};

/// CPU: an item is a block of columns of the whole table; positions are added in order. GPU: an item is a block of
/// columns of one table row; the group scans for positions with its token.
template <class T>
struct embedding_table_backward {
  using value_type = T;
  static constexpr int shared_per_thread = 1;
  static constexpr index_t cpu_columns = 64 / index_t(sizeof(T));
  index_t vocabulary, channels, rows;
  int const* tokens;
  T const* grad_y;
  T* grad;

  template <class Group>
  static constexpr index_t items(index_t vocabulary, index_t channels) {
    return Group::size() == 1 ? divide_up(channels, cpu_columns)
                              : vocabulary * divide_up(channels, index_t(summed_columns<Group, T>));
  }
  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index_t item, T* memory) const {
    if constexpr (Group::size() == 1) {
      index_t const first = item * cpu_columns, last = min_of(channels, first + cpu_columns);
      for (index_t v = 0; v < vocabulary; v++)
        for (index_t k = first; k < last; k++) grad[v * channels + k] = 0;
      for (index_t r = 0; r < rows; r++) {
        T* const to = grad + tokens[r] * channels;
        for (index_t k = first; k < last; k++) to[k] += grad_y[r * channels + k];
      }
    } else {
      constexpr index_t block = summed_columns<Group, T>;
      index_t const blocks = divide_up(channels, block), token = item / blocks;
      sum_rows<T>(group, memory, 0, rows, item % blocks * block, channels,
                  rows_of_token<T>{channels, tokens, grad_y, int(token)},
                  [&](int, index_t c, T sum) TCNCA_INLINE { grad[token * channels + c] = sum; });
    }
  }
};

/// A grey level, scaled to -1 ... 1.
template <class T>
TCNCA_HOST_DEVICE T level_of(int token) {
  return (T(token) / T(255) - T(0.5)) / T(0.5);
}
template <class T>
struct embedding_level_forward {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t channels;
  int const* tokens;
  T const *weight, *bias;
  T* y;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range) return;
    T const level = level_of<T>(tokens[row]);
    threads.template each<T>(channels, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      store<W>(y + row * channels + k, fma(broadcast<W>(level), load<W>(weight + k), load<W>(bias + k)));
    });
  }
};
template <class T>
struct embedding_level_backward {
  static constexpr int kinds = 2;
  index_t channels;
  int const* tokens;
  T const* grad_y;
  TCNCA_HOST_DEVICE static constexpr bool counts(index_t) { return true; }
  template <int W>
  TCNCA_HOST_DEVICE void add(pack<T, W>* sums, index_t r, index_t c) const {
    auto const g = load<W>(grad_y + r * channels + c);
    sums[0] = fma(g, broadcast<W>(level_of<T>(tokens[r])), sums[0]);
    sums[1] = sums[1] + g;
  }
};

}  // namespace detail

/// table: rows of a table [vocabulary, channels], initialized from N(0, 1 / channels).
/// level: (token / 255 - 1/2) / (1/2) weight + bias, initialized from N(0, 1 / channels) and 0.
/// Tokens are in the executor's memory and are below the vocabulary.
template <class T, class E>
class embedding {
 public:
  embedding(context<T, E>& c, index_t vocabulary, index_t channels, embedding_kind kind = embedding_kind::table)
      : kind_(kind), vocabulary_(vocabulary), channels_(channels) {
    initial const normal{.deviation = 1 / std::sqrt(double(channels))};
    table_ = c.parameter(kind == embedding_kind::table ? vocabulary * channels : channels, normal);
    if (kind == embedding_kind::level)
      bias_ = c.parameter(channels, {}), c.reserve(column_sums_bytes<T>(c.rows(), channels, 2));
  }

  void forward(context<T, E> const& c, int const* tokens, T* y) const {
    T const* const table = c.values[table_];
    if (kind_ == embedding_kind::table)
      each_row(c.executor(), c.rows(), channels_, detail::embedding_table_forward<T>{channels_, tokens, table, y});
    else
      each_row(c.executor(), c.rows(), channels_,
               detail::embedding_level_forward<T>{channels_, tokens, table, c.values[bias_], y});
  }
  void backward(context<T, E> const& c, int const* tokens, T const* grad_y) const {
    T* const grad = c.gradients[table_];
    if (kind_ == embedding_kind::table) {
      using pass = detail::embedding_table_backward<T>;
      run_pass(c.executor(), pass::template items<pass_group<E>>(vocabulary_, channels_),
               pass{vocabulary_, channels_, c.rows(), tokens, grad_y, grad});
    } else {
      column_sums(c, c.rows(), channels_, detail::embedding_level_backward<T>{channels_, tokens, grad_y},
                  {grad, c.gradients[bias_]});
    }
  }

 private:
  embedding_kind kind_;
  index_t vocabulary_, channels_;
  region table_, bias_;
};

}  // namespace tcnca::models
