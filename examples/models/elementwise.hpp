// Passes over activations: silu, sums of columns, dropout.
#pragma once
#include <tcnca/block/activation.hpp>
#include <tcnca/block/philox.hpp>
#include <tcnca/policy/registers.hpp>

#include "memory.hpp"

namespace tcnca::models {

/// f(index of the first, pack width as an integral_constant) over n elements: whole registers, then single elements.
template <class T, class F>
void each_pack([[maybe_unused]] int threads, index n, F f) {
  constexpr int width = tcnca::detail::register_bytes / int(sizeof(T));
  index const whole = n / width * width;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (index i = 0; i < whole; i += width) f(i, std::integral_constant<int, width>{});
  for (index i = whole; i < n; i++) f(i, std::integral_constant<int, 1>{});
}

/// y = silu(x).
template <class T>
void silu(int threads, index n, T const* x, T* y) {
  each_pack<T>(threads, n, [=](index i, auto w) {
    store<w()>(y + i, activate<activation::silu>(load<w()>(x + i)).value);
  });
}
/// grad_x = grad_y silu'(x); both may be the same memory.
template <class T>
void silu_backward(int threads, index n, T const* x, T const* grad_y, T* grad_x) {
  each_pack<T>(threads, n, [=](index i, auto w) {
    store<w()>(grad_x + i, load<w()>(grad_y + i) * activate<activation::silu>(load<w()>(x + i)).slope);
  });
}
/// y += x.
template <class T>
void add(int threads, index n, T const* x, T* y) {
  each_pack<T>(threads, n, [=](index i, auto w) { store<w()>(y + i, load<w()>(y + i) + load<w()>(x + i)); });
}

/// sums[c] = sum over the rows of f(row, column), in the order of rows: threads share the columns.
template <class T, class F>
void column_sums(int threads, index rows, index columns, T* sums, F f) {
  index const piece = ((columns + threads - 1) / threads + 15) / 16 * 16;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (index first = 0; first < columns; first += piece) {
    index const last = std::min(columns, first + piece);
    for (index c = first; c < last; c++) sums[c] = 0;
    for (index r = 0; r < rows; r++)
      for (index c = first; c < last; c++) sums[c] += f(r, c);
  }
}

/// In place: drops elements with a probability and divides the others by 1 - probability. The mask is a function of the context's seed and step, of
/// the site and of the element; so the same call on the gradient is the backward pass.
template <class T, class E>
void dropout(context<T, E> const& c, double probability, uint32 site, index n, T* x) {
  if (probability == 0 || !c.training) return;
  uint32 const below = uint32(probability * 4294967296.0);
  T const kept = T(1 / (1 - probability));
#pragma omp parallel for num_threads(c.threads) schedule(static)
  for (index i = 0; i < n; i += 4) {
    philox_words const w = philox(c.seed, {{uint32(i / 4), uint32(uint64(i / 4) >> 32), uint32(c.step), site}});
    for (index k = i; k < std::min(n, i + 4); k++) x[k] = w.word[k - i] < below ? T(0) : kept * x[k];
  }
}

}  // namespace tcnca::models
