// MEGA's exponential moving average as its equations read, in fp64, one state of one channel after another; simple on
// purpose. The same text computes numbers (N = double) and, with N = bounded, bounds on the error of a correct
// implementation.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "bounded.hpp"

namespace tcnca::reference::ema {

using integer = std::int64_t;

/// A state is a sum over the past that an implementation may split anywhere (a scan over threads does).
using bounded = bounded_number<true>;

// Rounding of the functions in units u, with exp good to 2 ulp = 4 u and one u for each other operation: sigmoid 6 u;
// silu 7 u |x|; its derivative s + x s (1 - s): 8 u + 16 u |x|. |sigmoid'| <= 1/4, |silu'| < 1.1, |silu''| <= 1/2.
inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline bounded sigmoid(bounded x) {
  double const s = sigmoid(x.v);
  return {s, s, x.e / 4 + 6 * bounded::u * s};
}
inline double silu(double x) { return x * sigmoid(x); }
inline bounded silu(bounded x) { return {silu(x.v), std::abs(x.v), 1.1 * x.e + 7 * bounded::u * std::abs(x.v)}; }
inline double silu_derivative(double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }
inline bounded silu_derivative(bounded x) {
  double const d = silu_derivative(x.v);
  return {d, std::abs(d), x.e / 2 + bounded::u * (8 + 16 * std::abs(x.v))};
}

/// The options of a moving average. scan: roundings of a state by a scan over threads, in addition to those of its
/// recurrence.
struct shape {
  int states = 1;
  bool bidirectional = false, skip = false;
  double scan = 0;
  int directions() const { return bidirectional ? 2 : 1; }
};

/// Row-major: x, grad_y [batch, channels, length]; delta, alpha, beta, gamma [directions * channels, states]; omega
/// [channels]; states [batch, channels, states]. An empty vector is an absent argument.
struct problem {
  integer batch = 0, channels = 0, length = 0;
  std::vector<double> x, delta, alpha, beta, gamma, omega, state_in, grad_y, grad_state_out;
};

template <class N>
struct outputs {
  std::vector<N> y, state_out;
};
template <class N>
struct gradients {
  std::vector<N> x, delta, alpha, beta, gamma, omega, state_in;
};

namespace detail {

template <class N>
struct coefficients {
  N p, a, beta, gamma, q, u, w;
  coefficients(shape const& s, problem const& in, std::size_t i)
      : p(sigmoid(N(in.delta[i]))),
        a(sigmoid(N(in.alpha[i]))),
        beta(in.beta[i]),
        gamma(in.gamma[i]),
        q(N(1) - p * a),
        u(p * beta),
        w(gamma * N(std::sqrt(1.0 / s.states))) {
    // 1 - p a loses the rounding of the difference, not of its terms
    if constexpr (!std::is_same_v<N, double>) {
      q = N(q.v, q.v, p.m * a.e + a.m * p.e + bounded::u * (p.m * a.m + q.v));
    }
  }
};

/// The states of one row of parameters after each of `length` positions of x from `first` on, in the order of the
/// recurrence. A step adds two roundings to the state (product and sum, or the product with the power of q that carries
/// it across threads).
template <class N>
std::vector<N> states(coefficients<N> const& k, std::vector<double> const& x, integer first, integer length,
                      integer step, N h) {
  std::vector<N> all(static_cast<std::size_t>(length));
  for (integer t = 0; t < length; t++) all[std::size_t(t)] = h = k.q * h + k.u * N(x[std::size_t(first + t * step)]);
  return all;
}

/// y before the skip connection, [batch, channels, length].
template <class N>
std::vector<N> sums(shape const& s, problem const& in, std::vector<N>* state_out) {
  std::vector<N> y(in.x.size());
  for (integer row = 0; row < in.batch * in.channels; row++)
    for (int half = 0; half < s.directions(); half++)
      for (int n = 0; n < s.states; n++) {
        integer const L = in.length, first = row * L + (half ? L - 1 : 0), step = half ? -1 : 1,
                      state = row * s.states + n;
        coefficients<N> const k(s, in, std::size_t((half * in.channels + row % in.channels) * s.states + n));
        N h = in.state_in.empty() ? N(0) : N(in.state_in[std::size_t(state)]);
        auto const all = states(k, in.x, first, L, step, h);
        for (integer t = 0; t < L; t++) {
          N& to = y[std::size_t(first + t * step)];
          to = to + k.w * (h = rounded(all[std::size_t(t)], s.scan));
        }
        if (state_out) (*state_out)[std::size_t(state)] = h;
      }
  return y;
}

}  // namespace detail

template <class N>
outputs<N> forward(shape const& s, problem const& in) {
  outputs<N> out;
  if (!s.bidirectional) out.state_out.resize(std::size_t(in.batch * in.channels * s.states));
  out.y = detail::sums<N>(s, in, s.bidirectional ? nullptr : &out.state_out);
  if (s.skip)
    for (std::size_t i = 0; i < out.y.size(); i++)
      out.y[i] = silu(out.y[i] + N(in.omega[i / std::size_t(in.length) % std::size_t(in.channels)]) * N(in.x[i]));
  return out;
}

/// Adds the gradients of the parameters of one row and state, from those of u, w and q.
template <class N>
void add_gradients(shape const& s, detail::coefficients<N> const& k, std::size_t i, N of_u, N of_w, N of_q,
                   gradients<N>& to) {
  to.gamma[i] = to.gamma[i] + of_w * N(std::sqrt(1.0 / s.states));
  to.beta[i] = to.beta[i] + of_u * k.p;
  to.delta[i] = to.delta[i] + (of_u * k.beta - of_q * k.a) * k.p * (N(1) - k.p);
  to.alpha[i] = to.alpha[i] + of_q * N(-1) * k.p * k.a * (N(1) - k.a);
}

template <class N>
gradients<N> backward(shape const& s, problem const& in) {
  gradients<N> out;
  std::size_t const parameters = in.delta.size(), L = std::size_t(in.length);
  out.x.resize(in.x.size());
  for (auto* v : {&out.delta, &out.alpha, &out.beta, &out.gamma}) v->resize(parameters);
  out.omega.resize(s.skip ? std::size_t(in.channels) : 0);
  out.state_in.resize(in.state_in.size());
  std::vector<N> g(in.grad_y.begin(), in.grad_y.end());
  if (s.skip) {
    auto const y = detail::sums<N>(s, in, nullptr);
    for (std::size_t i = 0; i < g.size(); i++) {
      N const omega(in.omega[i / L % std::size_t(in.channels)]), x(in.x[i]);
      g[i] = g[i] * silu_derivative(y[i] + omega * x);
      out.x[i] = omega * g[i];
      N& sum = out.omega[i / L % std::size_t(in.channels)];
      sum = sum + g[i] * x;
    }
  }
  for (integer row = 0; row < in.batch * in.channels; row++)
    for (int half = 0; half < s.directions(); half++)
      for (int n = 0; n < s.states; n++) {
        integer const first = row * in.length + (half ? in.length - 1 : 0), step = half ? -1 : 1;
        std::size_t const state = std::size_t(row * s.states + n),
                          i = std::size_t((half * in.channels + row % in.channels) * s.states + n);
        detail::coefficients<N> const k(s, in, i);
        N const h0 = in.state_in.empty() ? N(0) : N(in.state_in[state]);
        auto const h = detail::states(k, in.x, first, in.length, step, h0);
        N l = in.grad_state_out.empty() ? N(0) : N(in.grad_state_out[state]), of_u(0), of_w(0), of_q(0);
        for (integer t = in.length - 1; t >= 0; t--) {
          std::size_t const at = std::size_t(first + t * step);
          l = l + k.w * g[at];  // the gradient of h[t]
          N const lt = rounded(l, s.scan);
          out.x[at] = out.x[at] + k.u * lt;
          of_u = of_u + lt * N(in.x[at]);
          of_w = of_w + g[at] * rounded(h[std::size_t(t)], s.scan);
          of_q = of_q + lt * (t > 0 ? rounded(h[std::size_t(t - 1)], s.scan) : h0);
          l = k.q * l;
        }
        if (!in.state_in.empty()) out.state_in[state] = rounded(l, s.scan);
        add_gradients(s, k, i, of_u, of_w, of_q, out);
      }
  return out;
}

/// q^l, a factor of a term of the kernel: l roundings in fp64, in the reference as well, whose q is rounded.
template <class N>
N power(double q, integer l) {
  double const v = std::pow(q, double(l));
  if constexpr (std::is_same_v<N, double>) {
    return v;
  } else {
    return {v, v, v * (bounded::u + 3 * double(l) * 0x1p-53) + double(l) * 0x1p-1074};
  }
}

/// kappa [directions * channels, length].
template <class N>
std::vector<N> kernel(shape const& s, problem const& in) {
  std::vector<N> kappa(static_cast<std::size_t>(s.directions() * in.channels * in.length));
  for (integer row = 0; row < s.directions() * in.channels; row++)
    for (int n = 0; n < s.states; n++) {
      detail::coefficients<double> const k(s, in, std::size_t(row * s.states + n));
      for (integer l = 0; l < in.length; l++) {
        N& to = kappa[std::size_t(row * in.length + l)];
        to = to + rounded(N(k.w * k.u), 3) * power<N>(k.q, l);
      }
    }
  return kappa;
}

template <class N>
gradients<N> kernel_backward(shape const& s, problem const& in, std::vector<double> const& grad_kappa) {
  gradients<N> out;
  for (auto* v : {&out.delta, &out.alpha, &out.beta, &out.gamma}) v->resize(in.delta.size());
  for (integer row = 0; row < s.directions() * in.channels; row++)
    for (int n = 0; n < s.states; n++) {
      std::size_t const i = std::size_t(row * s.states + n);
      detail::coefficients<double> const k(s, in, i);
      N sum(0), derivative(0);
      for (integer l = 0; l < in.length; l++) {
        double const g = grad_kappa[std::size_t(row * in.length + l)];
        sum = sum + N(g) * power<N>(k.q, l);
        if (l > 0) derivative = derivative + rounded(N(g * double(l)) * power<N>(k.q, l - 1), 3);
      }
      add_gradients(s, detail::coefficients<N>(s, in, i), i, N(k.w) * sum, N(k.u) * sum, N(k.u * k.w) * derivative,
                    out);
    }
  return out;
}

}  // namespace tcnca::reference::ema
