// Chunked attention as its equations read, one row after another; simple on purpose. The same text computes numbers in
// fp64 (N = double), in fp32 (N = float: the error of a naive implementation), and, with N = bounded, bounds on the
// error of a correct implementation.
#pragma once
#include "chunked_attention_number.hpp"

namespace tcnca::reference::attention {

enum class function { softmax, laplace, relu2 };

/// The options of an attention.
struct shape {
  function f = function::softmax;
  bool causal = false, bias = false, dropout = false;
};

/// Row-major: q [batch, heads, length, key_dim]; k [batch, key_heads, length, key_dim]; v [batch, key_heads, length,
/// value_dim]; grad_o [batch, heads, length, value_dim]; bias [heads, 2 chunk - 1]; alibi, head_lengths [batch, heads];
/// lengths [batch]; keys_in, grad_keys_out [batch, key_heads, chunk, key_dim]; values_in, grad_values_out [batch,
/// key_heads, chunk, value_dim]. An empty vector is an absent argument. scale 0: the default. key_heads 0: as many as
/// heads. window 0: none. number: of the first sequence of the batch, for dropout.
struct problem {
  integer batch = 0, heads = 0, length = 0, key_dim = 0, value_dim = 0, chunk = 1, position = 0;
  double scale = 0, dropout = 0;
  std::uint64_t seed = 0, offset = 0;
  integer key_heads = 0, window = 0, number = 0;
  std::vector<double> q, k, v, bias, alibi, keys_in, values_in, grad_o, grad_keys_out, grad_values_out;
  std::vector<integer> lengths, head_lengths;

  integer heads_of_keys() const { return key_heads != 0 ? key_heads : heads; }
  integer rows() const { return batch * heads * length; }
  /// Filled slots of the state: before the call, after it.
  integer filled_before() const { return position % chunk; }
  integer filled_after() const { return (position + length) % chunk; }
};

template <class N>
struct outputs {
  std::vector<N> o, lse;  // lse: softmax only
};
template <class N>
struct gradients {
  std::vector<N> q, k, v, bias, keys_in,
      values_in;  // of states all slots; those from filled_before() on are undefined
};

/// Whether dropout keeps an element: `query` an absolute position, `j` the key's position in its chunk, `head` counted
/// over the batch too.
inline bool kept(problem const& p, integer query, integer j, integer head) {
  std::uint64_t const row = std::uint64_t(query) + p.offset;
  auto const words = philox({std::uint32_t(row), std::uint32_t(row >> 32), std::uint32_t(j / 4), std::uint32_t(head)},
                            {std::uint32_t(p.seed), std::uint32_t(p.seed >> 32)});
  return words[std::size_t(j % 4)] >= std::uint32_t(std::floor(p.dropout * 4294967296.0));
}

namespace detail {

inline double const mu = std::sqrt(0.5),
                    gain = std::sqrt(2 * 3.14159265358979323846);  // gain = 1 / (sigma sqrt 2), sigma^2 = 1 / (4 pi)

/// One query: its valid keys (absolute positions), their scores, weights before dropout, and the factors of dropout.
template <class N>
struct row {
  std::vector<integer> keys;
  std::vector<N> score, weight;
  std::vector<double> keep;
  double scale = 0;
  N lse = N(-INFINITY);
  bool none = true;  // no valid key, or none with a score above -inf
};

template <class N>
struct one_head {
  shape const& s;
  problem const& p;
  integer b, h;

  integer head() const { return b * p.heads + h; }
  integer key_head() const { return head() / (p.heads / p.heads_of_keys()); }
  // The index of the vector at an absolute position: of a query or a key in the sequence, or in the state.
  std::size_t in_sequence(integer at, integer dim) const {
    return std::size_t((head() * p.length + at - p.position) * dim);
  }
  std::size_t of_key(integer at, integer dim) const {
    return std::size_t((key_head() * p.length + at - p.position) * dim);
  }
  std::size_t in_state(integer at, integer dim) const {
    return std::size_t((key_head() * p.chunk + at % p.chunk) * dim);
  }
  double const* query(integer at) const { return &p.q[in_sequence(at, p.key_dim)]; }
  double const* key(integer at) const {
    return at < p.position ? &p.keys_in[in_state(at, p.key_dim)] : &p.k[of_key(at, p.key_dim)];
  }
  double const* value(integer at) const {
    return at < p.position ? &p.values_in[in_state(at, p.value_dim)] : &p.v[of_key(at, p.value_dim)];
  }
  std::size_t diagonal(integer at, integer key) const {
    return std::size_t(h * (2 * p.chunk - 1) + p.chunk - 1 + key - at);
  }

  row<N> attend(integer at) const {
    row<N> r;
    integer const begin = at / p.chunk * p.chunk;
    integer const first = p.window > 0 ? std::max(begin, at + 1 - p.window) : begin;
    integer end = std::min(begin + p.chunk, p.position + p.length);
    if (!p.head_lengths.empty()) {
      integer const length = p.head_lengths[std::size_t(head())];
      end = at < length ? std::min(end, length) : first;
    }
    if (!p.lengths.empty()) end = std::min(end, p.lengths[std::size_t(b)]);
    if (s.causal) end = std::min(end, at + 1);
    for (integer j = first; j < end; j++) r.keys.push_back(j);
    double const n = double(std::max<integer>(1, integer(r.keys.size())));
    r.scale = p.scale != 0 ? p.scale : s.f == function::softmax ? 1 / std::sqrt(double(p.key_dim)) : 1 / n;
    for (integer const j : r.keys) {
      sum<N> dot;
      for (integer d = 0; d < p.key_dim; d++) dot.add(N(query(at)[d]), N(key(j)[d]));
      N score = rounded(dot.get() * N(r.scale), 2);  // the scale is rounded too, or the query was multiplied by it
      if (s.bias) score = score + N(p.bias[diagonal(at, j)]);
      if (!p.alibi.empty()) score = score - N(p.alibi[std::size_t(head())]) * N(double(std::abs(at - j)));
      r.score.push_back(score);
      r.keep.push_back(!s.dropout ? 1 : kept(p, at, j - begin, p.number * p.heads + head()) ? 1 / (1 - p.dropout) : 0);
    }
    compute_weights(r);
    return r;
  }

  void compute_weights(row<N>& r) const {
    if (s.f == function::softmax) {
      std::size_t top = 0;
      for (std::size_t i = 0; i < r.score.size() && !std::isnan(value_of(r.score[top])); i++)
        if (!(value_of(r.score[i]) <= value_of(r.score[top]))) top = i;  // a NaN is the maximum
      r.none = r.score.empty() || value_of(r.score[top]) == -INFINITY;
      r.weight.assign(r.score.size(), N(0));
      if (r.none) return;
      sum<N> total;
      for (std::size_t i = 0; i < r.score.size(); i++) {
        r.weight[i] = i == top ? N(exp_of_zero(value_of(r.score[top])))
                               : exp_difference(r.score[i], r.score[top], rescales(r.score.size()));
        total.add(r.weight[i], N(1));
      }
      r.lse = log_sum(r.score[top], total.get());
      for (N& w : r.weight) w = fraction(w, total.get());
    } else {
      r.none = r.score.empty();
      for (N const& x : r.score)
        r.weight.push_back(s.f == function::laplace ? laplace(x, mu, gain) : square_positive(x));
    }
  }
  // inf - inf and NaN - NaN
  static double exp_of_zero(double top) { return std::isfinite(top) ? 1 : NAN; }
  // An online softmax over tiles of at least 16 keys rescales its sums at most once a tile.
  static double rescales(std::size_t keys) { return double((keys + 15) / 16); }

  /// The weight as the backward pass recomputes it.
  N weight(row<N> const& r, std::size_t i) const {
    return s.f == function::softmax ? again(r.weight[i], r.score[i], r.lse) : r.weight[i];
  }

  N result(row<N> const& r, integer c) const {
    sum<N> o;
    if (!r.none)
      for (std::size_t i = 0; i < r.keys.size(); i++)
        o.add(operand(r.weight[i] * N(r.keep[i]), 1), N(value(r.keys[i])[c]));
    return stored(o.get());
  }
  /// The derivatives by the scores, from those by the row of o.
  std::vector<N> by_score(row<N> const& r, double const* grad_o, std::vector<N> const& o) const {
    std::vector<N> all;
    sum<N> inner;
    for (std::size_t c = 0; c < o.size(); c++) inner.add(N(grad_o[c]), o[c]);
    for (std::size_t i = 0; i < r.keys.size(); i++) {
      sum<N> dot;
      for (integer c = 0; c < p.value_dim; c++) dot.add(N(grad_o[c]), N(value(r.keys[i])[c]));
      N const by_weight = dot.get() * N(r.keep[i]);
      if (s.f == function::softmax) all.push_back(weight(r, i) * (by_weight - inner.get()));
      else if (s.f == function::laplace) all.push_back(laplace_derivative(r.score[i], mu, gain) * by_weight);
      else all.push_back(positive(r.score[i]) * N(2) * by_weight);
    }
    return all;
  }
};

template <class N, class F>
void each_head(shape const& s, problem const& p, F f) {
  for (integer b = 0; b < p.batch; b++)
    for (integer h = 0; h < p.heads; h++) f(one_head<N>{s, p, b, h});
}

/// A state after the call; NaN in slots that are not written.
inline std::vector<double> state_after(problem const& p, std::vector<double> const& sequence,
                                       std::vector<double> const& before, integer dim) {
  std::vector<double> after(std::size_t(p.batch * p.heads_of_keys() * p.chunk * dim), NAN);
  for (integer head = 0; head < p.batch * p.heads_of_keys(); head++)
    for (integer slot = 0; slot < p.filled_after(); slot++) {
      integer const at = (p.position + p.length) / p.chunk * p.chunk + slot;
      for (integer d = 0; d < dim; d++)
        after[std::size_t((head * p.chunk + slot) * dim + d)] =
            at < p.position ? before[std::size_t((head * p.chunk + slot) * dim + d)]
                            : sequence[std::size_t((head * p.length + at - p.position) * dim + d)];
    }
  return after;
}

}  // namespace detail

inline std::vector<double> keys_out(problem const& p) { return detail::state_after(p, p.k, p.keys_in, p.key_dim); }
inline std::vector<double> values_out(problem const& p) {
  return detail::state_after(p, p.v, p.values_in, p.value_dim);
}

template <class N>
outputs<N> forward(shape const& s, problem const& p) {
  outputs<N> out;
  detail::each_head<N>(s, p, [&](detail::one_head<N> const& one) {
    for (integer t = p.position; t < p.position + p.length; t++) {
      auto const r = one.attend(t);
      for (integer c = 0; c < p.value_dim; c++) out.o.push_back(one.result(r, c));
      if (s.f == function::softmax) out.lse.push_back(r.lse);
    }
  });
  return out;
}

template <class N>
gradients<N> backward(shape const& s, problem const& p) {
  std::size_t const state = std::size_t(p.batch * p.heads_of_keys() * p.chunk), rows = std::size_t(p.rows()),
                    key_rows = std::size_t(p.batch * p.heads_of_keys() * p.length);
  std::size_t const key_dim = std::size_t(p.key_dim), value_dim = std::size_t(p.value_dim);
  std::vector<sum<N>> q(rows * key_dim), k(key_rows * key_dim), v(key_rows * value_dim),
      bias(s.bias ? std::size_t(p.heads * (2 * p.chunk - 1)) : 0);
  std::vector<sum<N>> keys_in(p.keys_in.empty() ? 0 : state * key_dim),
      values_in(p.values_in.empty() ? 0 : state * value_dim);
  detail::each_head<N>(s, p, [&](detail::one_head<N> const& one) {
    for (integer t = p.position; t < p.position + p.length; t++) {
      auto const r = one.attend(t);
      if (r.none) continue;
      std::vector<N> o;
      if (s.f == function::softmax)
        for (integer c = 0; c < p.value_dim; c++) o.push_back(one.result(r, c));
      double const* const grad_o = &p.grad_o[one.in_sequence(t, p.value_dim)];
      auto const ds = one.by_score(r, grad_o, o);
      for (std::size_t i = 0; i < ds.size(); i++) {
        integer const j = r.keys[i];
        bool const old = j < p.position;
        N const weight = operand(one.weight(r, i) * N(r.keep[i]), 1),
                scaled = operand(rounded(ds[i] * N(r.scale), 1), r.scale);
        sum<N>* const to_k = old ? &keys_in[one.in_state(j, p.key_dim)] : &k[one.of_key(j, p.key_dim)];
        sum<N>* const to_v = old ? &values_in[one.in_state(j, p.value_dim)] : &v[one.of_key(j, p.value_dim)];
        for (integer d = 0; d < p.key_dim; d++) {
          q[one.in_sequence(t, p.key_dim) + std::size_t(d)].add(scaled, N(one.key(j)[d]));
          to_k[d].add(scaled, N(one.query(t)[d]));
        }
        for (integer c = 0; c < p.value_dim; c++) to_v[c].add(weight, N(grad_o[c]));
        if (s.bias) bias[one.diagonal(t, j)].add(ds[i], N(1));
      }
    }
    // The final state: slots of the last chunk, if it is not full; once per head of keys.
    if (one.head() % (p.heads / p.heads_of_keys()) != 0) return;
    integer const last = (p.position + p.length) / p.chunk * p.chunk;
    auto const pass = [&](std::vector<double> const& given, integer dim, std::vector<sum<N>>& now,
                          std::vector<sum<N>>& before) {
      if (given.empty()) return;
      for (integer at = last; at < p.position + p.length; at++)
        for (integer d = 0; d < dim; d++)
          (at < p.position ? before[one.in_state(at, dim) + std::size_t(d)] : now[one.of_key(at, dim) + std::size_t(d)])
              .add(N(given[one.in_state(at, dim) + std::size_t(d)]), N(1));
    };
    pass(p.grad_keys_out, p.key_dim, k, keys_in);
    pass(p.grad_values_out, p.value_dim, v, values_in);
  });
  gradients<N> out;
  auto const put = [](std::vector<N>& to, std::vector<sum<N>> const& from, bool element) {
    for (sum<N> const& x : from) to.push_back(element ? stored(x.get()) : x.get());
  };
  put(out.q, q, true), put(out.k, k, true), put(out.v, v, true), put(out.bias, bias, false),
      put(out.keys_in, keys_in, false);
  put(out.values_in, values_in, false);
  return out;
}

/// The rotary table [heads, 2 chunk - 1] of a, b [heads, key_dim].
template <class N>
std::vector<N> rotary(integer heads, integer key_dim, integer chunk, std::vector<double> const& a,
                      std::vector<double> const& b) {
  std::vector<N> table;
  integer const half = key_dim / 2;
  for (integer h = 0; h < heads; h++)
    for (integer m = 1 - chunk; m < chunk; m++) {
      sum<N> t;
      for (integer i = 0; i < half; i++) {
        auto const x = std::size_t(h * key_dim + i), y = x + std::size_t(half);
        auto const [c, s] = turn<N>(double(-m) * std::pow(10000, -double(i) / double(half)));
        t.add(N(a[x]) * N(b[x]) + N(a[y]) * N(b[y]), c);
        t.add(N(a[x]) * N(b[y]) - N(a[y]) * N(b[x]), s);
      }
      table.push_back(t.get());
    }
  return table;
}
template <class N>
struct rotary_gradients {
  std::vector<N> a, b;
};
template <class N>
rotary_gradients<N> rotary_backward(integer heads, integer key_dim, integer chunk, std::vector<double> const& a,
                                    std::vector<double> const& b, std::vector<double> const& grad_table) {
  rotary_gradients<N> out{std::vector<N>(a.size(), N(0)), std::vector<N>(a.size(), N(0))};
  integer const half = key_dim / 2;
  for (integer h = 0; h < heads; h++)
    for (integer i = 0; i < half; i++) {
      auto const x = std::size_t(h * key_dim + i), y = x + std::size_t(half);
      sum<N> cosine, sine;
      for (integer m = 1 - chunk; m < chunk; m++) {
        auto const [c, s] = turn<N>(double(-m) * std::pow(10000, -double(i) / double(half)));
        N const g = N(grad_table[std::size_t(h * (2 * chunk - 1) + chunk - 1 + m)]);
        cosine.add(g, c), sine.add(g, s);
      }
      N const c = cosine.get(), s = sine.get();
      out.a[x] = rounded(N(b[x]) * c + N(b[y]) * s, 2), out.a[y] = rounded(N(b[y]) * c - N(b[x]) * s, 2);
      out.b[x] = rounded(N(a[x]) * c - N(a[y]) * s, 2), out.b[y] = rounded(N(a[y]) * c + N(a[x]) * s, 2);
    }
  return out;
}

}  // namespace tcnca::reference::attention
