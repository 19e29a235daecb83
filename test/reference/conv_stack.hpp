// The convolution stack as its equations read, in fp64, one channel of one sequence after another; naive on purpose.
// With every number goes a bound on how far a correct implementation may be from it: the rounding of each sum of n terms,
// n eps sum |w||x|, and of each activation, carried through the layers by the weights' magnitudes and the activations' slopes.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace tcnca::reference {

using integer = std::int64_t;

enum class activation { none, relu, silu, gelu_erf, gelu_tanh, tanh };
enum class direction { causal, symmetric, bidirectional };

/// A stack. Layer i: pre[t] = bias[i] + sum_k weight[i,k] a[t - shift(i,k)]; a' = act(pre), plus the input of its span if it ends one.
struct stack {
  int taps = 1;
  std::vector<integer> dilation;  ///< of each layer
  int span = 0;                   ///< layers between a residual's two ends; 0: none
  activation act = activation::none;
  bool bias = false, skip = false;
  direction dir = direction::causal;

  int layers() const { return int(dilation.size()); }
  int directions() const { return dir == direction::bidirectional ? 2 : 1; }
  integer history(int l) const { return (taps - 1) * dilation[std::size_t(l)]; }
  integer state_begin(int l) const {
    integer n = 0;
    for (int i = 0; i < l; i++) n += history(i);
    return n;
  }
  integer state_length() const { return state_begin(layers()); }
  /// How far back tap k looks: k d; the same about the middle tap (symmetric); as far ahead (the anti-causal half, 1).
  integer shift(int l, int k, int half) const {
    integer const lag = k * dilation[std::size_t(l)];
    return half == 1 ? -lag : dir == direction::symmetric ? lag - history(l) / 2 : lag;
  }
};

/// The arithmetic that is judged: unit roundoffs of sums and of stored elements, and half the least positive element. All 0: exact.
struct arithmetic {
  double accumulate = 0, store = 0, underflow = 0;
};

/// Numbers and how far from each a correct result may be.
struct field {
  std::vector<double> value, error;
  field() = default;
  explicit field(integer n) : value(std::size_t(n)), error(std::size_t(n)) {}
};

/// Row-major: x, y and their gradients [batch, channels, length]; weight [halves * layers, taps, channels]; bias [halves * layers, channels];
/// omega [channels]; states [batch, channels, state_length]. An empty vector is an absent argument.
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
inline double slope(activation a, double x) {
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
// The greatest |act'| and |act''|, rounded up.
inline double steepest(activation a) {
  switch (a) {
    case activation::silu: return 1.0999;
    case activation::gelu_erf:
    case activation::gelu_tanh: return 1.13;
    default: return 1;
  }
}
inline double most_curved(activation a) {
  switch (a) {
    case activation::silu: return 0.5;
    case activation::gelu_erf:
    case activation::gelu_tanh: return 0.8;
    case activation::tanh: return 0.77;
    default: return 0;
  }
}
// Rounding of the activations themselves, in units u of the accumulate type, with exp, tanh and erf good to 2 ulp = 4 u (CUDA's documented
// worst, and what the CPU's polynomials state) and one u for each other operation:
//   silu      x / (1 + exp(-x)): 4 + 1 + 1 for the sigmoid, 1 for the product                                  7 u |x|
//   gelu_erf  erf(x c): 2 u of the argument move it by max(z erf'(z)) 2 u < 1 u, erf 4 u, halved, + 0.5, times x   5 u |x|
//   gelu_tanh 6 u of the argument move tanh by max(z tanh'(z)) 6 u < 3 u, tanh 4 u, halved, + 0.5, times x         6 u |x|
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
// And of their slopes:
//   silu      s + y (1 - s): 6 u of s, 7 u of y = x s and 7 u of 1 - s on |y|, one u each for product and sum   8 u + 16 u |x|
//   gelu_erf  4 u of Phi, x phi(x) with x^2/2 + 7 u relative: below 3 u, 1 u for the sum                         8 u
//   gelu_tanh 5 u of the gate; t^2 is off by 15 u, times |x/2| c (1 + 3 cubic x^2)                               8 u + 7 u |x| (1 + 3 cubic x^2)
//   tanh      1 - t^2: 9 u of t^2, 1 u                                                                           10 u
inline double slope_rounding(activation a, double x) {
  double const m = std::abs(x);
  switch (a) {
    case activation::silu: return 8 + 16 * m;
    case activation::gelu_erf: return 8;
    case activation::gelu_tanh: return 8 + 7 * m * (1 + 3 * cubic * x * x);
    case activation::tanh: return 10;
    default: return 0;
  }
}

// n roundings of each term, in any order of summation.
inline double gamma(integer n, double u) { return double(n) * u / (1 - double(n) * u); }
inline integer modulo(integer a, integer n) { return (a % n + n) % n; }

/// A number that was computed.
struct inexact {
  double v = 0, e = 0;
  double most() const { return std::abs(v) + e; }
};
inline inexact product(inexact a, inexact b, double u) {
  double const e = std::abs(a.v) * b.e + a.e * std::abs(b.v) + a.e * b.e;
  return {a.v * b.v, e + u * (std::abs(a.v * b.v) + e)};
}
inline inexact sum(inexact a, inexact b, double u) {
  return {a.v + b.v, a.e + b.e + u * (std::abs(a.v + b.v) + a.e + b.e)};
}
inline inexact activate(activation a, inexact x, double u) {
  return {value(a, x.v), steepest(a) * x.e + u * value_rounding(a, x.most())};
}
inline inexact slope_of(activation a, inexact x, double u) {
  if (a == activation::relu)
    return {slope(a, x.v), std::abs(x.v) <= x.e && x.e > 0 ? 1.0 : 0.0};  // either side of the kink
  return {slope(a, x.v), most_curved(a) * x.e + u * slope_rounding(a, x.most())};
}

/// A series over the positions [-history, length); anything outside is 0.
struct series {
  integer history = 0;
  std::vector<inexact> at_;
  series() = default;
  series(integer before, integer length) : history(before), at_(std::size_t(before + length)) {}
  inexact& operator[](integer t) { return at_[std::size_t(t + history)]; }
  inexact get(integer t) const {
    integer const i = t + history;
    return i < 0 || i >= integer(at_.size()) ? inexact{} : at_[std::size_t(i)];
  }
};

/// One channel of one sequence through one half of the stack: the input of each layer, each pre-activation, and the result.
struct trace {
  std::vector<series> input, pre;
  series output;
};

struct one_channel {
  stack const& s;
  problem const& p;
  double u;
  integer b, c;

  double weight(int half, int l, int k) const {
    return p.weight[std::size_t(((half * s.layers() + l) * s.taps + k) * p.channels + c)];
  }
  double bias(int half, int l) const {
    return s.bias ? p.bias[std::size_t((half * s.layers() + l) * p.channels + c)] : 0;
  }
  integer at(integer t) const { return (b * p.channels + c) * p.length + t; }
  // Where a layer's input at position t, counted from the call's first, stands in a state.
  std::size_t slot(int l, integer t) const {
    return std::size_t((b * p.channels + c) * s.state_length() + s.state_begin(l) +
                       modulo(p.position + t, s.history(l)));
  }

  trace forward(int half) const {
    trace r;
    series a(s.dir == direction::causal ? s.history(0) : 0, p.length);
    for (integer t = 0; t < p.length; t++) a[t] = {p.x[std::size_t(at(t))], 0};
    for (int l = 0; l < s.layers(); l++) {
      if (!p.state_in.empty())
        for (integer t = -s.history(l); t < 0; t++) a[t] = {p.state_in[slot(l, t)], 0};
      r.input.push_back(a);
      series pre(0, p.length);
      bool const last = l + 1 == s.layers();
      series next(!last && s.dir == direction::causal ? s.history(l + 1) : 0, p.length);
      for (integer t = 0; t < p.length; t++) {
        double v = bias(half, l), e = 0, magnitude = std::abs(v);
        for (int k = 0; k < s.taps; k++) {
          double const w = weight(half, l, k);
          inexact const x = a.get(t - s.shift(l, k, half));
          v += w * x.v, e += std::abs(w) * x.e, magnitude += std::abs(w) * x.most();
        }
        pre[t] = {v, e + gamma(s.taps + 1, u) * magnitude};
        next[t] = activate(s.act, pre[t], u);
        if (s.span > 0 && l % s.span == s.span - 1)
          next[t] = sum(next[t], r.input[std::size_t(l - s.span + 1)].get(t), u);
      }
      r.pre.push_back(std::move(pre));
      a = std::move(next);
    }
    r.output = std::move(a);
    return r;
  }

  // What the final SiLU sees, or the result where there is none.
  inexact total(std::vector<trace> const& halves, integer t) const {
    inexact z = halves[0].output.get(t);
    for (std::size_t h = 1; h < halves.size(); h++) z = sum(z, halves[h].output.get(t), u);
    if (s.skip) {
      double const w = p.omega[std::size_t(c)], x = p.x[std::size_t(at(t))];
      z = {z.v + w * x, z.e + gamma(2, u) * (z.most() + std::abs(w * x))};
    }
    return z;
  }
};

inline void put(field& f, std::size_t i, inexact x, arithmetic const* stored = nullptr) {
  f.value[i] = x.v;
  f.error[i] = x.e + (stored ? stored->store * x.most() + stored->underflow : 0);
}

}  // namespace detail

inline forward_result forward(stack const& s, problem const& p, arithmetic m = {}) {
  forward_result r{field(p.batch * p.channels * p.length), {}};
  if (s.dir == direction::causal) r.state_out = field(p.batch * p.channels * s.state_length());
  for (integer b = 0; b < p.batch; b++)
    for (integer c = 0; c < p.channels; c++) {
      detail::one_channel const one{s, p, m.accumulate, b, c};
      std::vector<detail::trace> halves;
      for (int h = 0; h < s.directions(); h++) halves.push_back(one.forward(h));
      for (integer t = 0; t < p.length; t++) {
        detail::inexact y = one.total(halves, t);
        if (s.skip) y = detail::activate(activation::silu, y, m.accumulate);
        detail::put(r.y, std::size_t(one.at(t)), y, &m);
      }
      if (s.dir == direction::causal)
        for (int l = 0; l < s.layers(); l++)
          for (integer t = p.length - s.history(l); t < p.length; t++)
            detail::put(r.state_out, one.slot(l, t), halves[0].input[std::size_t(l)].get(t));
    }
  return r;
}

inline backward_result backward(stack const& s, problem const& p, arithmetic m = {}) {
  using detail::inexact;
  double const u = m.accumulate;
  integer const rows = s.directions() * s.layers();
  backward_result r{field(p.batch * p.channels * p.length), field(rows * s.taps * p.channels),
                    field(s.bias ? rows * p.channels : 0), field(s.skip ? p.channels : 0),
                    field(p.state_in.empty() ? 0 : p.batch * p.channels * s.state_length())};
  // Sums over all positions of all sequences, in any order: first the terms and their magnitudes, the rounding at the end.
  field weight_magnitude = r.grad_weight, bias_magnitude = r.grad_bias, omega_magnitude = r.grad_omega;
  auto const add = [](field& to, field& magnitude, std::size_t i, inexact a, inexact b) {
    to.value[i] += a.v * b.v;
    to.error[i] += std::abs(a.v) * b.e + a.e * std::abs(b.v) + a.e * b.e;
    magnitude.value[i] += a.most() * b.most();
  };
  for (integer b = 0; b < p.batch; b++)
    for (integer c = 0; c < p.channels; c++) {
      detail::one_channel const one{s, p, u, b, c};
      std::vector<detail::trace> halves;
      for (int h = 0; h < s.directions(); h++) halves.push_back(one.forward(h));
      detail::series g(0, p.length), grad_x(0, p.length);
      for (integer t = 0; t < p.length; t++) {
        g[t] = {p.grad_y[std::size_t(one.at(t))], 0};
        if (!s.skip) continue;
        g[t] = detail::product(g[t], detail::slope_of(activation::silu, one.total(halves, t), u), u);
        inexact const x{p.x[std::size_t(one.at(t))], 0};
        add(r.grad_omega, omega_magnitude, std::size_t(c), g[t], x);
        grad_x[t] = detail::product(g[t], {p.omega[std::size_t(c)], 0}, u);
      }
      for (int h = 0; h < s.directions(); h++) {
        detail::series out = g, span;
        for (int l = s.layers() - 1; l >= 0; l--) {
          std::size_t const row = std::size_t(h * s.layers() + l);
          detail::series const& a = halves[std::size_t(h)].input[std::size_t(l)];
          if (s.span > 0 && l % s.span == s.span - 1) span = out;
          for (integer t = 0; t < p.length; t++) {
            if (s.act != activation::none)
              out[t] = detail::product(
                  out[t], detail::slope_of(s.act, halves[std::size_t(h)].pre[std::size_t(l)].get(t), u), u);
            for (int k = 0; k < s.taps; k++)
              add(r.grad_weight, weight_magnitude,
                  (row * std::size_t(s.taps) + std::size_t(k)) * std::size_t(p.channels) + std::size_t(c), out[t],
                  a.get(t - s.shift(l, k, h)));
            if (s.bias)
              add(r.grad_bias, bias_magnitude, row * std::size_t(p.channels) + std::size_t(c), out[t], {1, 0});
          }
          detail::series in(a.history, p.length);
          for (integer t = -a.history; t < p.length; t++) {
            double v = 0, e = 0, magnitude = 0;
            for (int k = 0; k < s.taps; k++) {
              double const w = one.weight(h, l, k);
              inexact const d = out.get(t + s.shift(l, k, h));
              v += w * d.v, e += std::abs(w) * d.e, magnitude += std::abs(w) * d.most();
            }
            in[t] = {v, e + detail::gamma(s.taps + 1, u) * magnitude};
            if (s.span > 0 && l % s.span == 0) in[t] = detail::sum(in[t], span.get(t), u);
            if (!p.grad_state_out.empty() && t >= p.length - s.history(l))
              in[t] = detail::sum(in[t], {p.grad_state_out[one.slot(l, t)], 0}, u);
            if (!p.state_in.empty() && t < 0) detail::put(r.grad_state_in, one.slot(l, t), in[t]);
          }
          // Where the call is shorter than the history, samples older than the call stay in the state: their gradient passes through.
          out = detail::series(0, p.length);
          for (integer t = 0; t < p.length; t++) out[t] = in[t];
        }
        for (integer t = 0; t < p.length; t++) grad_x[t] = detail::sum(grad_x[t], out[t], u);
      }
      for (integer t = 0; t < p.length; t++) detail::put(r.grad_x, std::size_t(one.at(t)), grad_x[t], &m);
    }
  integer const terms = p.batch * p.length + 1;
  auto const round = [&](field& f, field const& magnitude) {
    for (std::size_t i = 0; i < f.value.size(); i++) f.error[i] += detail::gamma(terms, u) * magnitude.value[i];
  };
  round(r.grad_weight, weight_magnitude);
  round(r.grad_bias, bias_magnitude);
  round(r.grad_omega, omega_magnitude);
  return r;
}

}  // namespace tcnca::reference
