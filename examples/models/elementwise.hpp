// Element-wise passes over activations.
#pragma once
#include <tcnca/block/activation.hpp>

#include "pass.hpp"

namespace tcnca::models {

namespace detail {

template <class T>
struct fill_op {
  T value;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t i) const {
    store<W>(y + i, broadcast<W>(value));
  }
};
template <class T>
struct copy_op {
  T const* x;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t i) const {
    store<W>(y + i, load<W>(x + i));
  }
};
template <class T>
struct add_op {
  T const* x;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t i) const {
    store<W>(y + i, load<W>(y + i) + load<W>(x + i));
  }
};
template <activation A, class T>
struct activation_op {
  T const* x;
  T* y;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t i) const {
    store<W>(y + i, activate<A>(load<W>(x + i)).value);
  }
};
template <activation A, class T>
struct activation_backward_op {
  T const *x, *grad_y;
  T* grad_x;
  template <int W>
  TCNCA_HOST_DEVICE void at(index_t i) const {
    store<W>(grad_x + i, load<W>(grad_y + i) * activate<A>(load<W>(x + i)).derivative);
  }
};

}  // namespace detail

/// y = value.
template <class E, class T>
void fill(E e, index_t n, T value, T* y) {
  each_element<T>(e, n, detail::fill_op<T>{value, y});
}
/// y = x.
template <class E, class T>
void copy(E e, index_t n, T const* x, T* y) {
  each_element<T>(e, n, detail::copy_op<T>{x, y});
}
/// y += x.
template <class E, class T>
void add(E e, index_t n, T const* x, T* y) {
  each_element<T>(e, n, detail::add_op<T>{x, y});
}
/// y = silu(x).
template <class E, class T>
void silu(E e, index_t n, T const* x, T* y) {
  each_element<T>(e, n, detail::activation_op<activation::silu, T>{x, y});
}
/// grad_x = grad_y silu'(x). grad_x may alias grad_y.
template <class E, class T>
void silu_backward(E e, index_t n, T const* x, T const* grad_y, T* grad_x) {
  each_element<T>(e, n, detail::activation_backward_op<activation::silu, T>{x, grad_y, grad_x});
}
/// y = gelu(x), the exact form (erf).
template <class E, class T>
void gelu(E e, index_t n, T const* x, T* y) {
  each_element<T>(e, n, detail::activation_op<activation::gelu_erf, T>{x, y});
}
/// grad_x = grad_y gelu'(x). grad_x may alias grad_y.
template <class E, class T>
void gelu_backward(E e, index_t n, T const* x, T const* grad_y, T* grad_x) {
  each_element<T>(e, n, detail::activation_backward_op<activation::gelu_erf, T>{x, grad_y, grad_x});
}

}  // namespace tcnca::models
