// The gates of a TCNCA layer as their equations read, in fp64, one element after another. The same text computes
// numbers (N = double) and, with N = ema::bounded, bounds on the error of a correct implementation.
#pragma once
#include "ema.hpp"
#include "philox.hpp"

namespace tcnca::reference::gates {

using ema::silu, ema::silu_derivative, ema::sigmoid;
using integer = std::int64_t;

/// The gates of a shape, and dropout: an element is dropped if its Philox word is below 2^32 times dropout.
struct shape {
  bool update = true, mixer = true;
  double dropout = 0;
  std::uint64_t seed = 0, offset = 0;
};

/// Rows [batch * length] of columns. An empty vector is an absent argument.
struct problem {
  integer length = 0, columns = 0;
  std::vector<double> z, gq, mq, gk, mk, grad_q, grad_k;  // mix
  std::vector<double> o, r;                               // reset
  std::vector<double> x, u, hx, h;                        // update
  std::vector<double> grad_y;                             // reset, update
};

template <class N>
using numbers = std::vector<N>;

/// One over 1 - p, or 0 where the element is dropped.
inline double keep(shape const& s, problem const& p, std::size_t i) {
  auto const columns = std::size_t(p.columns), length = std::size_t(p.length);
  auto const column = std::uint32_t(i % columns), batch = std::uint32_t(i / columns / length);
  std::uint64_t const at = i / columns % length + s.offset;
  auto const words = philox({std::uint32_t(at), std::uint32_t(at >> 32), column / 4, batch},
                            {std::uint32_t(s.seed), std::uint32_t(s.seed >> 32)});
  return double(words[column % 4]) < std::floor(std::ldexp(s.dropout, 32)) ? 0 : 1 / (1 - s.dropout);
}
template <class N>
N kept(shape const& s, problem const& p, std::size_t i) {
  return s.dropout > 0 ? rounded(N(keep(s, p, i)), 1) : N(1);
}

template <class N>
struct mixed {
  numbers<N> q, k;
};
template <class N>
mixed<N> mix(problem const& p) {
  mixed<N> out;
  for (std::size_t i = 0; i < p.z.size(); i++) {
    auto const c = i % std::size_t(p.columns);
    N const shared = silu(N(p.z[i]));
    out.q.push_back(shared * N(p.gq[c]) + N(p.mq[c])), out.k.push_back(shared * N(p.gk[c]) + N(p.mk[c]));
  }
  return out;
}
template <class N>
struct mix_gradients {
  numbers<N> z, gq, mq, gk, mk;
};
template <class N>
mix_gradients<N> mix_backward(problem const& p) {
  auto const columns = std::size_t(p.columns);
  numbers<N> const zero(columns, N(0));
  mix_gradients<N> out{{}, zero, zero, zero, zero};
  for (std::size_t i = 0; i < p.z.size(); i++) {
    auto const c = i % columns;
    N const shared = silu(N(p.z[i])), q(p.grad_q[i]), k(p.grad_k[i]);
    out.z.push_back((N(p.gq[c]) * q + N(p.gk[c]) * k) * silu_derivative(N(p.z[i])));
    out.gq[c] = out.gq[c] + q * shared, out.mq[c] = out.mq[c] + q;
    out.gk[c] = out.gk[c] + k * shared, out.mk[c] = out.mk[c] + k;
  }
  return out;
}

template <class N>
numbers<N> reset(problem const& p) {
  numbers<N> y;
  for (std::size_t i = 0; i < p.o.size(); i++) y.push_back(N(p.o[i]) * silu(N(p.r[i])));
  return y;
}
template <class N>
struct reset_gradients {
  numbers<N> o, r;
};
template <class N>
reset_gradients<N> reset_backward(problem const& p) {
  reset_gradients<N> out;
  for (std::size_t i = 0; i < p.o.size(); i++) {
    N const g(p.grad_y[i]);
    out.o.push_back(g * silu(N(p.r[i]))), out.r.push_back(g * N(p.o[i]) * silu_derivative(N(p.r[i])));
  }
  return out;
}

template <class N>
N candidate_input(shape const& s, problem const& p, std::size_t i) {
  return s.mixer ? N(p.h[i]) + N(p.hx[i]) : N(p.h[i]);
}
template <class N>
numbers<N> update(shape const& s, problem const& p) {
  numbers<N> y;
  for (std::size_t i = 0; i < p.h.size(); i++) {
    N const x(p.x[i]), candidate = kept<N>(s, p, i) * silu(candidate_input<N>(s, p, i));
    y.push_back(s.update ? x + sigmoid(N(p.u[i])) * (candidate - x) : x + candidate);
  }
  return y;
}
template <class N>
struct update_gradients {
  numbers<N> x, u, h;
};
template <class N>
update_gradients<N> update_backward(shape const& s, problem const& p) {
  update_gradients<N> out;
  for (std::size_t i = 0; i < p.h.size(); i++) {
    N const g(p.grad_y[i]), h = candidate_input<N>(s, p, i), keep = kept<N>(s, p, i);
    if (s.update) {
      N const gate = sigmoid(N(p.u[i])), x(p.x[i]);
      out.x.push_back(g - g * gate), out.u.push_back(g * gate * (N(1) - gate) * (keep * silu(h) - x)),
          out.h.push_back(g * gate * keep * silu_derivative(h));
    } else {
      out.x.push_back(g), out.h.push_back(g * keep * silu_derivative(h));
    }
  }
  return out;
}

}  // namespace tcnca::reference::gates
