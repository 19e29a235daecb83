// Every contender against the definition in fp64, in sampled chunks: the first and the last of the first and the last sequence.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

#include "arena.hpp"

namespace tcnca::bench {

/// One chunk in fp64: o, or grad_q, grad_k and grad_v, as [rows, dim].
struct exact_chunk {
  index_t first = 0, rows = 0;  ///< its first row among those of all sequences
  std::vector<double> o, grad_q, grad_k, grad_v;
};

/// What the check reads of an arena, once.
struct attention_inputs {
  std::vector<float> q, k, v, grad_o;
  explicit attention_inputs(attention_arena& a)
      : q(a.read(part::q)), k(a.read(part::k)), v(a.read(part::v)), grad_o(a.read(part::grad_o)) {}
};

inline exact_chunk direct_attention(attention_problem const& p, attention_inputs const& in, index_t sequence,
                                    index_t chunk) {
  auto const at = [](index_t i) { return static_cast<size_t>(i); };
  index_t const z = p.key_dim, h = p.value_dim, n = p.rows(chunk), first = sequence * p.length + chunk * p.chunk;
  exact_chunk out{first, n, {}, {}, {}, {}};
  out.o.resize(at(n * h)), out.grad_v.resize(at(n * h)), out.grad_q.resize(at(n * z)), out.grad_k.resize(at(n * z));
  auto const dot = [&](std::vector<float> const& a, index_t i, std::vector<float> const& b, index_t j, index_t dim) {
    double s = 0;
    for (index_t c = 0; c < dim; c++) s += double{a[at((first + i) * dim + c)]} * double{b[at((first + j) * dim + c)]};
    return s;
  };
  double const mu = std::sqrt(0.5), spread = std::sqrt(1 / (4 * std::numbers::pi)) * std::numbers::sqrt2;
  for (index_t i = 0; i < n; i++) {
    index_t const seen = p.causal ? i + 1 : n;
    bool const softmax = p.function == score_function::softmax;
    double const scale = softmax ? 1 / std::sqrt(static_cast<double>(z)) : 1 / static_cast<double>(seen);
    std::vector<double> s(at(seen)), a(at(seen)), grad(at(seen));
    for (index_t j = 0; j < seen; j++) s[at(j)] = scale * dot(in.q, i, in.k, j, z);
    double const top = *std::max_element(s.begin(), s.end());
    double total = 0, delta = 0;
    for (index_t j = 0; j < seen; j++) {
      double const u = (s[at(j)] - mu) / spread;
      total += a[at(j)] = softmax ? std::exp(s[at(j)] - top) : 0.5 * (1 + std::erf(u));
      grad[at(j)] = softmax ? 0 : std::exp(-u * u) / (spread * std::sqrt(std::numbers::pi));
    }
    for (index_t j = 0; j < seen; j++) {
      if (softmax) a[at(j)] /= total;
      for (index_t c = 0; c < h; c++) {
        out.o[at(i * h + c)] += a[at(j)] * double{in.v[at((first + j) * h + c)]};
        out.grad_v[at(j * h + c)] += a[at(j)] * double{in.grad_o[at((first + i) * h + c)]};
      }
      double const of_a = dot(in.grad_o, i, in.v, j, h);
      delta += of_a * a[at(j)];
      grad[at(j)] = softmax ? of_a : of_a * grad[at(j)];
    }
    for (index_t j = 0; j < seen; j++) {
      double const g = scale * (softmax ? a[at(j)] * (grad[at(j)] - delta) : grad[at(j)]);
      for (index_t c = 0; c < z; c++) {
        out.grad_q[at(i * z + c)] += g * double{in.k[at((first + j) * z + c)]};
        out.grad_k[at(j * z + c)] += g * double{in.q[at((first + i) * z + c)]};
      }
    }
  }
  return out;
}

/// Largest difference in a chunk, relative to the largest exact value (or to 0.25: a softmax over one key has gradients of 0).
inline double chunk_error(std::vector<float> const& got, std::vector<double> const& want, index_t first, index_t dim) {
  double difference = 0, scale = 0.25;
  for (size_t i = 0; i < want.size(); i++) {
    scale = std::max(scale, std::abs(want[i]));
    double const d = std::abs(double{got[static_cast<size_t>(first * dim) + i]} - want[i]);
    difference = std::isfinite(d) ? std::max(difference, d) : std::numeric_limits<double>::infinity();
  }
  return difference / scale;
}

struct attention_check {
  std::string contender;
  double error = 0;
  std::string missing;
};

inline std::vector<attention_check> check(attention_arena& a, attention_problem const& p) {
  attention_inputs const in(a);
  std::vector<exact_chunk> exact;
  for (index_t const s : {index_t{0}, p.sequences() - 1})
    for (index_t const c : {index_t{0}, p.chunks() - 1}) exact.push_back(direct_attention(p, in, s, c));
  std::vector<attention_check> results;
  auto const look = [&](std::string const& name, contender const& c, pass direction) {
    if (!c.run) return results.push_back({name, 0, c.missing});
    a.forget(direction);
    c.run();
    double error = 0;
    auto const compare = [&](part which, std::vector<double> exact_chunk::*want, index_t dim) {
      auto const got = a.read(which);
      for (auto const& e : exact) error = std::max(error, chunk_error(got, e.*want, e.first, dim));
    };
    if (direction == pass::forward) {
      compare(part::o, &exact_chunk::o, p.value_dim);
    } else {
      compare(part::grad_q, &exact_chunk::grad_q, p.key_dim), compare(part::grad_k, &exact_chunk::grad_k, p.key_dim);
      compare(part::grad_v, &exact_chunk::grad_v, p.value_dim);
    }
    results.push_back({name, error, {}});
  };
  for (pass const direction : {pass::forward, pass::backward}) {
    std::string const suffix = std::string(" ") + to_string(direction);
    look("tcnca" + suffix, a.library(direction), direction);
    auto const names = a.opponents();
    for (size_t i = 0; i < names.size(); i++) look(names[i] + suffix, a.opponent(i, direction, false), direction);
  }
  return results;
}

}  // namespace tcnca::bench
