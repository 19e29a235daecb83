// The gates of a TCNCA layer and their gradients, on packs in registers: for the passes of gated_fusion and for
// epilogues of matrix products. Each function is called by one thread.
#pragma once
#include "activation.hpp"

namespace tcnca::inline TCNCA_TARGET::gate {

/// Queries and keys.
template <class A, int W>
struct mixed {
  pack<A, W> q, k;
};
/// q = silu(z) gq + mq, k = silu(z) gk + mk (MEGA, arXiv 2209.10655, equations 6 and 7).
template <class A, int W>
TCNCA_HOST_DEVICE mixed<A, W> mix(pack<A, W> z, pack<A, W> gq, pack<A, W> mq, pack<A, W> gk, pack<A, W> mk) {
  auto const shared = activate<activation::silu>(z).value;
  return {fma(shared, gq, mq), fma(shared, gk, mk)};
}

/// The reset gate, o silu(r).
template <class A, int W>
TCNCA_HOST_DEVICE pack<A, W> reset(pack<A, W> o, pack<A, W> r) {
  return o * activate<activation::silu>(r).value;
}
/// The gradients of reset's arguments.
template <class A, int W>
struct reset_gradients {
  pack<A, W> o, r;
};
template <class A, int W>
TCNCA_HOST_DEVICE reset_gradients<A, W> reset_gradient(pack<A, W> o, pack<A, W> r, pack<A, W> grad_y) {
  auto const s = activate<activation::silu>(r);
  return {grad_y * s.value, grad_y * o * s.derivative};
}

/// The update gate between the layer's input x and its candidate: x + sigmoid(u) (keep silu(h) - x). keep is the factor
/// of dropout, or 1.
template <class A, int W>
TCNCA_HOST_DEVICE pack<A, W> update(pack<A, W> x, pack<A, W> u, pack<A, W> h, pack<A, W> keep) {
  auto const candidate = keep * activate<activation::silu>(h).value;
  return fma(detail::sigmoid(u), candidate - x, x);
}
/// Without the gate, a residual connection: x + keep silu(h).
template <class A, int W>
TCNCA_HOST_DEVICE pack<A, W> update(pack<A, W> x, pack<A, W> h, pack<A, W> keep) {
  return fma(keep, activate<activation::silu>(h).value, x);
}
/// The gradients of update's arguments; u is that of the gate.
template <class A, int W>
struct update_gradients {
  pack<A, W> x, u, h;
};
template <class A, int W>
TCNCA_HOST_DEVICE update_gradients<A, W> update_gradient(pack<A, W> x, pack<A, W> u, pack<A, W> h, pack<A, W> keep,
                                                         pack<A, W> grad_y) {
  auto const one = broadcast<W>(A(1));
  auto const s = activate<activation::silu>(h);
  auto const gate = detail::sigmoid(u), through = grad_y * gate;
  return {grad_y - through, through * (one - gate) * (keep * s.value - x), through * keep * s.derivative};
}
template <class A, int W>
TCNCA_HOST_DEVICE update_gradients<A, W> update_gradient(pack<A, W> h, pack<A, W> keep, pack<A, W> grad_y) {
  return {grad_y, broadcast<W>(A(0)), grad_y * keep * activate<activation::silu>(h).derivative};
}

}  // namespace tcnca::gate
