// Passes over activations, element by element: copies, sums, activations, dropout.
#pragma once
#include <tcnca/block/activation.hpp>
#include <tcnca/block/philox.hpp>

#include "pass.hpp"

namespace tcnca::models {

namespace detail {

template <class T>
struct fill_op {
  T value;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index i) const {
    store<W>(y + i, broadcast<W>(value));
  }
};
template <class T>
struct copy_op {
  T const* x;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index i) const {
    store<W>(y + i, load<W>(x + i));
  }
};
template <class T>
struct add_op {
  T const* x;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index i) const {
    store<W>(y + i, load<W>(static_cast<T const*>(y) + i) + load<W>(x + i));
  }
};
template <activation A, class T>
struct activation_op {
  T const* x;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index i) const {
    store<W>(y + i, activate<A>(load<W>(x + i)).value);
  }
};
template <activation A, class T>
struct activation_backward_op {
  T const *x, *grad_y;
  T* grad_x;
  template <int W>
  TCNCA_HOST_DEVICE void at(index i) const {
    store<W>(grad_x + i, load<W>(grad_y + i) * activate<A>(load<W>(x + i)).slope);
  }
};

/// A thread takes four neighbours, which share one draw of four words.
template <class T>
struct dropout_pass {
  using number = T;
  static constexpr int near = 0;
  template <class Group>
  static constexpr index block = Group::size() == 1 ? 1024 : 4 * Group::size();
  uint32 below, site;
  T kept;
  uint64 seed, step;
  index count;
  T* x;

  template <class Group>
  TCNCA_HOST_DEVICE void operator()(Group group, index item, T*) const {
    index const last = min(count, (item + 1) * block<Group>);
    for (index i = item * block<Group> + 4 * group.rank(); i < last; i += 4 * group.size()) {
      philox_words const w = philox(seed, {{uint32(i / 4), uint32(uint64(i / 4) >> 32), uint32(step), site}});
      TCNCA_UNROLL
      for (int k = 0; k < 4; k++)
        if (i + k < last) x[i + k] = w.word[k] < below ? T(0) : kept * x[i + k];
    }
  }
};

}  // namespace detail

/// y = value, everywhere.
template <class E, class T>
void fill(E e, index n, T value, T* y) {
  each_element<T>(e, n, detail::fill_op<T>{value, y});
}
/// y = x.
template <class E, class T>
void copy(E e, index n, T const* x, T* y) {
  each_element<T>(e, n, detail::copy_op<T>{x, y});
}
/// y += x.
template <class E, class T>
void add(E e, index n, T const* x, T* y) {
  each_element<T>(e, n, detail::add_op<T>{x, y});
}
/// y = silu(x).
template <class E, class T>
void silu(E e, index n, T const* x, T* y) {
  each_element<T>(e, n, detail::activation_op<activation::silu, T>{x, y});
}
/// grad_x = grad_y silu'(x); both may be the same memory.
template <class E, class T>
void silu_backward(E e, index n, T const* x, T const* grad_y, T* grad_x) {
  each_element<T>(e, n, detail::activation_backward_op<activation::silu, T>{x, grad_y, grad_x});
}
/// y = gelu(x), the form with erf.
template <class E, class T>
void gelu(E e, index n, T const* x, T* y) {
  each_element<T>(e, n, detail::activation_op<activation::gelu_erf, T>{x, y});
}
/// grad_x = grad_y gelu'(x); both may be the same memory.
template <class E, class T>
void gelu_backward(E e, index n, T const* x, T const* grad_y, T* grad_x) {
  each_element<T>(e, n, detail::activation_backward_op<activation::gelu_erf, T>{x, grad_y, grad_x});
}

/// In place: drops elements with a probability and divides the others by 1 - probability. The mask is a function of the context's seed and step, of
/// the site and of the element, the same on every machine; so the same call on the gradient is the backward pass.
template <class T, class E>
void dropout(context<T, E> const& c, double probability, uint32 site, index n, T* x) {
  if (probability == 0 || !c.training) return;
  using pass = detail::dropout_pass<T>;
  pass const p{uint32(probability * 4294967296.0), site, T(1 / (1 - probability)), c.seed, c.step, n, x};
  run_pass(c.executor(), divide_up(n, pass::template block<pass_group<E>>), p);
}

}  // namespace tcnca::models
