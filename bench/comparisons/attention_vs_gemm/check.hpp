// Compares every contender with the fp64 reference of the tests (test/reference), in the first and the last chunk of
// the first and the last sequence.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <reference/chunked_attention.hpp>
#include "fixture.hpp"

namespace tcnca::bench {

/// The inputs of a fixture in fp32.
struct attention_inputs {
  std::vector<float> q, k, v, grad_o;
  explicit attention_inputs(attention_fixture& f)
      : q(f.read(part::q)), k(f.read(part::k)), v(f.read(part::v)), grad_o(f.read(part::grad_o)) {}
};

/// The exact results of one chunk, [rows, dim].
struct exact_chunk {
  index_t first = 0;  ///< index of its first row among those of all sequences
  std::vector<double> o;
  reference::attention::gradients<double> grad;
};

inline exact_chunk exact_attention(attention_problem const& p, attention_inputs const& in, index_t sequence,
                                   index_t chunk) {
  namespace ref = reference::attention;
  index_t const first = sequence * p.length + chunk * p.chunk, rows = p.rows(chunk);
  auto const select = [&](std::vector<float> const& from, index_t dim) {
    auto const begin = from.begin() + first * dim;
    return std::vector<double>(begin, begin + rows * dim);
  };
  ref::shape const shape{.f = p.function == score_function::softmax ? ref::function::softmax : ref::function::laplace,
                         .causal = p.causal};
  ref::problem r;
  r.batch = r.heads = 1, r.length = r.chunk = rows, r.key_dim = p.key_dim, r.value_dim = p.value_dim;
  r.q = select(in.q, p.key_dim), r.k = select(in.k, p.key_dim);
  r.v = select(in.v, p.value_dim), r.grad_o = select(in.grad_o, p.value_dim);
  return {first, ref::forward<double>(shape, r).o, ref::backward<double>(shape, r)};
}

/// The largest difference in a chunk, relative to the largest exact value, or to 0.25 if that is larger: the gradient
/// of a softmax over one key is 0.
inline double chunk_error(std::vector<float> const& computed, std::vector<double> const& exact, index_t first,
                          index_t dim) {
  double difference = 0, scale = 0.25;
  for (size_t i = 0; i < exact.size(); i++) {
    scale = std::max(scale, std::abs(exact[i]));
    double const d = std::abs(double{computed[static_cast<size_t>(first * dim) + i]} - exact[i]);
    difference = std::isfinite(d) ? std::max(difference, d) : std::numeric_limits<double>::infinity();
  }
  return difference / scale;
}

struct attention_check {
  std::string contender;
  double error = 0;
  std::string skip_reason;
};

inline std::vector<attention_check> check(attention_fixture& f, attention_problem const& p) {
  attention_inputs const in(f);
  std::vector<exact_chunk> exact;
  for (index_t const s : {index_t{0}, p.sequences() - 1})
    for (index_t const c : {index_t{0}, p.chunks() - 1})
      if (exact.empty() || s * p.length + c * p.chunk > exact.back().first)
        exact.push_back(exact_attention(p, in, s, c));
  std::vector<attention_check> results;
  auto const compare = [&](std::string const& name, contender const& c, pass direction) {
    if (!c.run) return results.push_back({name, 0, c.skip_reason});
    f.clear_outputs(direction);
    c.run();
    double error = 0;
    auto const add = [&](part which, auto const& select, index_t dim) {
      auto const computed = f.read(which);
      for (auto const& e : exact) error = std::max(error, chunk_error(computed, select(e), e.first, dim));
    };
    if (direction == pass::forward) {
      add(
          part::o, [](auto const& e) -> auto& { return e.o; }, p.value_dim);
    } else {
      add(
          part::grad_q, [](auto const& e) -> auto& { return e.grad.q; }, p.key_dim);
      add(
          part::grad_k, [](auto const& e) -> auto& { return e.grad.k; }, p.key_dim);
      add(
          part::grad_v, [](auto const& e) -> auto& { return e.grad.v; }, p.value_dim);
    }
    results.push_back({name, error, {}});
  };
  for (pass const direction : {pass::forward, pass::backward}) {
    std::string const suffix = std::string(" ") + to_string(direction);
    compare("tcnca" + suffix, f.library(direction), direction);
    auto const names = f.baselines();
    for (size_t i = 0; i < names.size(); i++) compare(names[i] + suffix, f.baseline(i, direction, false), direction);
  }
  return results;
}

}  // namespace tcnca::bench
