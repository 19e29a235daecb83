// From the parameters of an EMA to the coefficients of its recurrence, and back for their gradients.
#pragma once
#include "../block/activation.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The parameters of an EMA. delta, alpha, beta, gamma: [rows, states]; a row is a channel. Bidirectional: 2 * channels
/// rows, those of the causal EMA first. omega: [channels].
template <class A>
struct ema_parameters {
  tensor_view<A const, 2> delta = {}, alpha = {}, beta = {}, gamma = {};
  tensor_view<A const, 1> omega = {};
};

namespace detail {

/// sqrt(1 / states), by Newton's method.
constexpr double inverse_square_root(int states) {
  double s = 1;
  for (int i = 0; i < 60; i++) s = 0.5 * (s + 1 / (states * s));
  return s;
}
template <int States>
inline constexpr double ema_scale = inverse_square_root(States);

/// The coefficients of one state for W channels: h <- q h + u x, y = sum of w h over the states.
template <class A, int W>
struct ema_coefficients {
  using value = pack<A, W>;
  value p, a, beta, gamma;
  value q, u, w;

  /// For `count` channels from `row` on; the other lanes have parameters of 0.
  TCNCA_HOST_DEVICE ema_coefficients(ema_parameters<A> const& parameters, index_t row, index_t state, int count,
                                     A scale) {
    auto const read = [&](tensor_view<A const, 2> const& v) {
      return load_some<W>(v.at(row, state), v.stride[0], count);
    };
    p = sigmoid(read(parameters.delta)), a = sigmoid(read(parameters.alpha));
    beta = read(parameters.beta), gamma = read(parameters.gamma);
    q = broadcast<W>(A(1)) - p * a;
    u = p * beta;
    w = gamma * broadcast<W>(scale);
  }
};

}  // namespace detail

/// The gradients of an EMA's parameters, shaped like them; some may be absent.
template <class A>
struct ema_gradients {
  tensor_view<A, 2> delta = {}, alpha = {}, beta = {}, gamma = {};
  tensor_view<A, 1> omega = {};

  constexpr bool any() const {
    return delta.given() || alpha.given() || beta.given() || gamma.given() || omega.given();
  }

  /// Stores the gradients of one row and state, from those of u = p beta, w = gamma / sqrt(states) and q = 1 - p a.
  /// These are fp64 because two of them nearly cancel in the gradient of delta. Called by one thread.
  TCNCA_HOST_DEVICE void store(ema_parameters<A> const& parameters, index_t row, index_t state, A scale, double grad_u,
                               double grad_w, double grad_q) const {
    detail::ema_coefficients<A, 1> const k(parameters, row, state, 1, scale);
    double const p = double(k.p.lane(0)), a = double(k.a.lane(0));
    if (gamma.present()) *gamma.at(row, state) = A(grad_w * double(scale));
    if (beta.present()) *beta.at(row, state) = A(grad_u * p);
    if (delta.present()) *delta.at(row, state) = A((grad_u * double(k.beta.lane(0)) - grad_q * a) * p * (1 - p));
    if (alpha.present()) *alpha.at(row, state) = A(-grad_q * p * a * (1 - a));
  }
};

}  // namespace tcnca
