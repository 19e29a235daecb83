// Padding at the end of sequences.
#pragma once
#include "pass.hpp"

namespace tcnca::models {

namespace detail {
template <class T>
struct zero_padding_rows {
  using value_type = T;
  static constexpr int shared_per_thread = 0;
  index_t length, columns;
  index_t const* lengths;
  T* x;
  template <class Threads>
  TCNCA_HOST_DEVICE void operator()(Threads const& threads, index_t row, bool out_of_range, T*) const {
    if (out_of_range || row % length < lengths[row / length]) return;
    threads.template each<T>(columns, [&](auto w, index_t k) TCNCA_INLINE {
      constexpr int W = decltype(w)::value;
      store<W>(x + row * columns + k, broadcast<W>(T(0)));
    });
  }
};
}  // namespace detail

/// In place: zeroes positions that are not valid (context::lengths), so that no operation along time carries their
/// values to valid ones.
template <class T, class E>
void zero_padding(context<T, E> const& c, index_t columns, T* x) {
  if (c.lengths() == nullptr) return;
  each_row(c.executor(), c.rows(), columns, detail::zero_padding_rows<T>{c.length, columns, c.lengths(), x});
}

}  // namespace tcnca::models
