// The convolution stack as its equations read, in fp64, one channel of one sequence after another; simple on purpose.
// Every value comes with a bound on the error of a correct implementation (see bounded.hpp), carried through the layers
// by the weights' magnitudes and the activations' derivatives.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "bounded.hpp"

namespace tcnca::reference {

using integer = std::int64_t;

enum class activation { none, relu, silu, gelu_erf, gelu_tanh, tanh };
enum class direction { causal, symmetric, bidirectional };

/// A stack. Layer i: pre[t] = bias[i] + sum_k weight[i,k] a[t - shift(i,k)]; a' = act(pre), plus the residual if one
/// ends here; with post_activation a' = act(pre plus the residual).
struct stack {
  int taps = 1;
  std::vector<integer> dilation;  ///< of each layer
  int residual_span = 0;          ///< layers that a residual connection spans; 0: none
  activation act = activation::none;
  bool post_activation = false;
  bool bias = false, skip = false;
  direction dir = direction::causal;
  bool rounds = false;  ///< whether an implementation rounds what is passed between layers, and the state, to elements

  int layers() const { return int(dilation.size()); }
  int directions() const { return dir == direction::bidirectional ? 2 : 1; }
  integer history(int l) const { return (taps - 1) * dilation[std::size_t(l)]; }
  integer state_begin(int l) const {
    integer n = 0;
    for (int i = 0; i < l; i++) n += history(i);
    return n;
  }
  integer state_length() const { return state_begin(layers()); }
  /// How far back tap k of layer l reads: k dilations; about the middle tap (symmetric); ahead (direction 1 of a
  /// bidirectional stack).
  integer shift(int l, int k, int d) const {
    integer const lag = k * dilation[std::size_t(l)];
    return d == 1 ? -lag : dir == direction::symmetric ? lag - history(l) / 2 : lag;
  }
};

/// Values, and how far from each a correct result may be.
struct field {
  std::vector<double> value, error;
  field() = default;
  explicit field(integer n) : value(std::size_t(n)), error(std::size_t(n)) {}
  void set(std::size_t i, bounded x) { value[i] = x.v, error[i] = x.e; }
  std::vector<bounded> numbers() const {
    std::vector<bounded> all;
    for (std::size_t i = 0; i < value.size(); i++) all.emplace_back(value[i], error[i]);
    return all;
  }
};

/// Row-major: x, y and their gradients [batch, channels, length]; weight [directions * layers, taps, channels]; bias
/// [directions * layers, channels]; omega [channels]; states [batch, channels, state_length]. An empty vector is an
/// absent argument.
struct problem {
  integer batch = 0, channels = 0, length = 0, position = 0;
  std::vector<double> x, weight, bias, omega, state_in, grad_y, grad_state_out;
};
struct forward_result {
  field y, state_out;
};
struct backward_result {
  field grad_x, grad_weight, grad_bias, grad_omega, grad_state_in;
};

namespace detail {

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
inline constexpr double sqrt_half = 0.70710678118654752440,
                        density_0 = 0.39894228040143267794;                     // 1/sqrt(2), 1/sqrt(2 pi)
inline constexpr double tanh_scale = 0.79788456080286535588, cubic = 0.044715;  // sqrt(2/pi)

inline double value(activation a, double x) {
  switch (a) {
    case activation::none: return x;
    case activation::relu: return x > 0 ? x : 0;
    case activation::silu: return x * sigmoid(x);
    case activation::gelu_erf: return 0.5 * x * std::erfc(-x * sqrt_half);
    case activation::gelu_tanh: return 0.5 * x * (1 + std::tanh(tanh_scale * (x + cubic * x * x * x)));
    case activation::tanh: return std::tanh(x);
  }
  return NAN;
}
inline double derivative(activation a, double x) {
  switch (a) {
    case activation::none: return 1;
    case activation::relu: return x > 0 ? 1 : 0;
    case activation::silu: return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
    case activation::gelu_erf: return 0.5 * std::erfc(-x * sqrt_half) + x * density_0 * std::exp(-0.5 * x * x);
    case activation::gelu_tanh: {
      double const t = std::tanh(tanh_scale * (x + cubic * x * x * x));
      return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * tanh_scale * (1 + 3 * cubic * x * x);
    }
    case activation::tanh: return 1 - std::tanh(x) * std::tanh(x);
  }
  return NAN;
}
// The largest |act'| and |act''|, rounded up.
inline double largest_derivative(activation a) {
  switch (a) {
    case activation::silu: return 1.0999;
    case activation::gelu_erf:
    case activation::gelu_tanh: return 1.13;
    default: return 1;
  }
}
inline double largest_curvature(activation a) {
  switch (a) {
    case activation::silu: return 0.5;
    case activation::gelu_erf:
    case activation::gelu_tanh: return 0.8;
    case activation::tanh: return 0.77;
    default: return 0;
  }
}
// Rounding of the activations themselves, in units u of the accumulate type. exp, tanh and erf are good to 2 ulp = 4 u
// (the maximum that CUDA documents, and that of the CPU's polynomials), each other operation to 1 u:
//   silu      x / (1 + exp(-x)): 4 + 1 + 1 for the sigmoid, 1 for the product                                  7 u |x|
//   gelu_erf  erf(x c): 2 u of the argument move it by < 1 u, erf 4 u, halved, + 0.5, times x                  5 u |x|
//   gelu_tanh 6 u of the argument move tanh by < 3 u, tanh 4 u, halved, + 0.5, times x                    6 u |x|
//   tanh      4 u |tanh x|
inline double value_rounding(activation a, double x) {
  double const m = std::abs(x);
  switch (a) {
    case activation::silu: return 7 * m;
    case activation::gelu_erf: return 5 * m;
    case activation::gelu_tanh: return 6 * m;
    case activation::tanh: return 4 * m;
    default: return 0;
  }
}
// And of their derivatives:
//   silu      s + y (1 - s): 6 u of s, 7 u of y = x s and 7 u of 1 - s on |y|, 1 u for product and sum  8 u + 16 u |x|
//   gelu_erf  4 u of Phi, x phi(x) with x^2/2 + 7 u relative: below 3 u, 1 u for the sum                         8 u
//   gelu_tanh 5 u of the gate; t^2 is off by 15 u, times |x/2| c (1 + 3 cubic x^2)      8 u + 7 u |x| (1 + 3 cubic x^2)
//   tanh      1 - t^2: 9 u of t^2, 1 u                                                                           10 u
inline double derivative_rounding(activation a, double x) {
  double const m = std::abs(x);
  switch (a) {
    case activation::silu: return 8 + 16 * m;
    case activation::gelu_erf: return 8;
    case activation::gelu_tanh: return 8 + 7 * m * (1 + 3 * cubic * x * x);
    case activation::tanh: return 10;
    default: return 0;
  }
}

inline integer modulo(integer a, integer n) { return (a % n + n) % n; }

inline bounded activate(activation a, bounded x) {
  return {value(a, x.v), largest_derivative(a) * x.e + arithmetic::u * value_rounding(a, x.most())};
}
inline bounded derivative(activation a, bounded x) {
  if (a == activation::relu)  // the computed value may lie on either side of 0
    return {derivative(a, x.v), std::abs(x.v) <= x.e && x.e > 0 ? 1.0 : 0.0};
  return {derivative(a, x.v), largest_curvature(a) * x.e + arithmetic::u * derivative_rounding(a, x.most())};
}

/// A series over the positions [-history, length); anything outside is 0.
struct series {
  integer history = 0;
  std::vector<bounded> at_;
  series() = default;
  series(integer before, integer length) : history(before), at_(std::size_t(before + length)) {}
  bounded& operator[](integer t) { return at_[std::size_t(t + history)]; }
  bounded get(integer t) const {
    integer const i = t + history;
    return i < 0 || i >= integer(at_.size()) ? bounded{} : at_[std::size_t(i)];
  }
};

/// One channel of one sequence through one direction of the stack: the input of each layer, each pre-activation, and
/// the result.
struct trace {
  std::vector<series> input, pre;
  series output;
};

struct one_channel {
  stack const& s;
  problem const& p;
  integer b, c;

  std::size_t weight_index(int d, int l, int k) const {
    return std::size_t(((d * s.layers() + l) * s.taps + k) * p.channels + c);
  }
  std::size_t bias_index(int d, int l) const { return std::size_t((d * s.layers() + l) * p.channels + c); }
  bounded weight(int d, int l, int k) const { return bounded(p.weight[weight_index(d, l, k)]); }
  bounded omega() const { return bounded(p.omega[std::size_t(c)]); }
  std::size_t at(integer t) const { return std::size_t((b * p.channels + c) * p.length + t); }
  bounded x(integer t) const { return bounded(p.x[at(t)]); }
  // The index in a state of a layer's input at position t, counted from the first of the call.
  std::size_t slot(int l, integer t) const {
    return std::size_t((b * p.channels + c) * s.state_length() + s.state_begin(l) +
                       modulo(p.position + t, s.history(l)));
  }
  // What is passed between layers.
  bounded passed(bounded a) const { return s.rounds ? stored(a) : a; }
  bool residual_begins(int l) const { return s.residual_span > 0 && l % s.residual_span == 0; }
  bool residual_ends(int l) const { return s.residual_span > 0 && l % s.residual_span == s.residual_span - 1; }

  trace forward(int d) const {
    trace r;
    series a(s.dir == direction::causal ? s.history(0) : 0, p.length);
    for (integer t = 0; t < p.length; t++) a[t] = x(t);
    for (int l = 0; l < s.layers(); l++) {
      if (!p.state_in.empty())
        for (integer t = -s.history(l); t < 0; t++) a[t] = passed(bounded(p.state_in[slot(l, t)]));
      r.input.push_back(a);
      series pre(0, p.length);
      bool const last = l + 1 == s.layers();
      series next(!last && s.dir == direction::causal ? s.history(l + 1) : 0, p.length);
      for (integer t = 0; t < p.length; t++) {
        sum<bounded> total;
        if (s.bias) total.add(bounded(p.bias[bias_index(d, l)]), bounded(1));
        for (int k = 0; k < s.taps; k++) total.add(weight(d, l, k), a.get(t - s.shift(l, k, d)));
        auto const residual = [&] { return r.input[std::size_t(l - s.residual_span + 1)].get(t); };
        pre[t] = total.get();
        if (residual_ends(l) && s.post_activation) pre[t] = pre[t] + residual();
        next[t] = activate(s.act, pre[t]);
        if (residual_ends(l) && !s.post_activation) next[t] = next[t] + residual();
        next[t] = passed(next[t]);
      }
      r.pre.push_back(std::move(pre));
      a = std::move(next);
    }
    r.output = std::move(a);
    return r;
  }
  std::vector<trace> forward() const {
    std::vector<trace> all;
    for (int d = 0; d < s.directions(); d++) all.push_back(forward(d));
    return all;
  }

  // The argument of the final SiLU, or the result of a stack without one.
  bounded total(std::vector<trace> const& directions, integer t) const {
    sum<bounded> z;
    for (trace const& d : directions) z.add(d.output.get(t), bounded(1));
    if (s.skip) z.add(omega(), x(t));
    return z.get();
  }
};

}  // namespace detail

inline forward_result forward(stack const& s, problem const& p) {
  forward_result r{field(p.batch * p.channels * p.length), {}};
  if (s.dir == direction::causal) r.state_out = field(p.batch * p.channels * s.state_length());
  for (integer b = 0; b < p.batch; b++)
    for (integer c = 0; c < p.channels; c++) {
      detail::one_channel const one{s, p, b, c};
      auto const traces = one.forward();
      for (integer t = 0; t < p.length; t++) {
        bounded const z = one.total(traces, t);
        r.y.set(one.at(t), stored(s.skip ? detail::activate(activation::silu, z) : z));
      }
      if (s.dir == direction::causal)
        for (int l = 0; l < s.layers(); l++)
          for (integer t = p.length - s.history(l); t < p.length; t++)
            r.state_out.set(one.slot(l, t), traces[0].input[std::size_t(l)].get(t));
    }
  return r;
}

inline backward_result backward(stack const& s, problem const& p) {
  integer const rows = s.directions() * s.layers();
  backward_result r{field(p.batch * p.channels * p.length), field(rows * s.taps * p.channels),
                    field(s.bias ? rows * p.channels : 0), field(s.skip ? p.channels : 0),
                    field(p.state_in.empty() ? 0 : p.batch * p.channels * s.state_length())};
  // Gradients of parameters: sums over all positions of all sequences.
  std::vector<sum<bounded>> weight(r.grad_weight.value.size()), bias(r.grad_bias.value.size()),
      omega(r.grad_omega.value.size());
  for (integer b = 0; b < p.batch; b++)
    for (integer c = 0; c < p.channels; c++) {
      detail::one_channel const one{s, p, b, c};
      auto const traces = one.forward();
      detail::series g(0, p.length), grad_x(0, p.length);
      for (integer t = 0; t < p.length; t++) {
        g[t] = bounded(p.grad_y[one.at(t)]);
        if (!s.skip) continue;
        g[t] = g[t] * detail::derivative(activation::silu, one.total(traces, t));
        omega[std::size_t(c)].add(g[t], one.x(t));
        grad_x[t] = g[t] * one.omega();
      }
      for (int d = 0; d < s.directions(); d++) {
        detail::trace const& trace = traces[std::size_t(d)];
        detail::series out = g, residual;
        for (int l = s.layers() - 1; l >= 0; l--) {
          detail::series const& a = trace.input[std::size_t(l)];
          if (one.residual_ends(l) && !s.post_activation) residual = out;
          for (integer t = 0; t < p.length; t++) {
            if (s.act != activation::none)
              out[t] = one.passed(out[t] * detail::derivative(s.act, trace.pre[std::size_t(l)].get(t)));
            for (int k = 0; k < s.taps; k++) weight[one.weight_index(d, l, k)].add(out[t], a.get(t - s.shift(l, k, d)));
            if (s.bias) bias[one.bias_index(d, l)].add(out[t], bounded(1));
          }
          if (one.residual_ends(l) && s.post_activation) residual = out;
          detail::series in(a.history, p.length);
          for (integer t = -a.history; t < p.length; t++) {
            sum<bounded> total;
            for (int k = 0; k < s.taps; k++) total.add(one.weight(d, l, k), out.get(t + s.shift(l, k, d)));
            in[t] = total.get();
            if (one.residual_begins(l)) in[t] = in[t] + residual.get(t);
            if (!p.grad_state_out.empty() && t >= p.length - s.history(l))
              in[t] = in[t] + bounded(p.grad_state_out[one.slot(l, t)]);
            if (!p.state_in.empty() && t < 0) r.grad_state_in.set(one.slot(l, t), in[t]);
          }
          // If the call is shorter than the history, samples older than the call stay in the state: their gradient
          // passes through.
          out = detail::series(0, p.length);
          for (integer t = 0; t < p.length; t++) out[t] = one.passed(in[t]);
        }
        for (integer t = 0; t < p.length; t++) grad_x[t] = grad_x[t] + out[t];
      }
      for (integer t = 0; t < p.length; t++) r.grad_x.set(one.at(t), stored(grad_x[t]));
    }
  for (std::size_t i = 0; i < weight.size(); i++) r.grad_weight.set(i, weight[i].get());
  for (std::size_t i = 0; i < bias.size(); i++) r.grad_bias.set(i, bias[i].get());
  for (std::size_t i = 0; i < omega.size(); i++) r.grad_omega.set(i, omega[i].get());
  return r;
}

}  // namespace tcnca::reference
