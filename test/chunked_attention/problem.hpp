// A problem for chunked_attention: its tensors, the calls, and the comparison with the reference.
#pragma once
#include <limits>
#include <ostream>
#include <vector>

#include <tcnca/chunked_attention.hpp>

#include "reference/chunked_attention.hpp"
#include "support/backend.hpp"
#include "support/compare.hpp"
#include "support/optional.hpp"

namespace tcnca::testing {

/// The type under test: an attention, an element type, a backend.
template <class Backend, class Element, class Case>
struct attention_subject {
  using backend = Backend;
  using T = Element;
  using A = accumulate_t<T>;
  static constexpr chunked_attention_shape shape = Case::shape;
  using op = chunked_attention<T, shape>;
  static constexpr bool softmax = shape.function == attention_function::softmax, causal = shape.causal;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};
/// A subject without its backend.
template <class T, class Case>
struct attention_case {
  template <class Backend>
  using on = attention_subject<Backend, T, Case>;
};

struct attention_extents {
  index_t batch = 1, heads = 1, length = 1, key_dim = 16, value_dim = 16, chunk = 1, position = 0;
  bool lengths = false, state_in = false, state_out = false;  // state_in: even if no slot is filled
  double scale = 0, dropout = 0, spread = 1.5;                // spread: of q and k
  bool heads_inside = false;                                  // [batch, length, heads, dim] in memory
  index_t group = 1;   // heads of queries per head of keys; more than 1 only if Shape.grouped
  index_t window = 0;  // if Shape.window
  placement where = {};
  friend std::ostream& operator<<(std::ostream& out, attention_extents const& e) {
    return out << "batch " << e.batch << ", heads " << e.heads << ", length " << e.length << ", key_dim " << e.key_dim
               << ", value_dim " << e.value_dim << ", chunk " << e.chunk << ", position " << e.position
               << (e.lengths ? ", lengths" : "") << (e.state_out ? ", state out" : "") << ", scale " << e.scale
               << ", dropout " << e.dropout << (e.heads_inside ? ", heads inside" : "") << ", padding "
               << e.where.padding << ", offset " << e.where.offset << ", group " << e.group << ", window " << e.window;
  }
};

/// The tensors of one problem, with random inputs and results initialized to NaN.
template <class S>
struct attention_problem {
  using T = typename S::T;
  using A = typename S::A;
  using op = typename S::op;
  using forward_args = typename op::forward_args;
  using backward_args = typename op::backward_args;
  using bounded = reference::attention::bounded;
  static constexpr chunked_attention_shape shape = S::shape;

  attention_extents e;
  reference::attention::shape const what{static_cast<reference::attention::function>(shape.function), shape.causal,
                                         shape.bias, shape.dropout};
  reference::attention::problem p;  // the same numbers in fp64
  tensor<T, 4> q, k, v, o, grad_o, grad_q, grad_k, grad_v, keys_in, values_in, keys_out, values_out;
  tensor<A, 4> grad_keys_out, grad_values_out, grad_keys_in, grad_values_in;
  tensor<A, 4> lse;
  tensor<A, 2> bias, grad_bias, alibi;
  tensor<index_t, 2> head_lengths;
  tensor<index_t, 1> lengths_given;  // p.lengths in memory that kernels can read

  attention_problem(attention_extents const& size, std::uint64_t seed) : e(size) {
    random_bits r{seed};
    p.batch = e.batch, p.heads = e.heads, p.length = e.length, p.key_dim = e.key_dim, p.value_dim = e.value_dim,
    p.chunk = e.chunk;
    p.position = e.position, p.scale = e.scale, p.dropout = e.dropout;
    if (shape.dropout) p.seed = r(), p.offset = r() >> between(r, 0, 63);
    lengths_given = tensor<index_t, 1>({e.batch}, {0}, e.where);
    p.key_heads = e.heads / e.group, p.window = e.window;
    q = sequence(e.key_dim), grad_q = sequence(e.key_dim), o = sequence(e.value_dim), grad_o = sequence(e.value_dim);
    k = keys(e.key_dim), grad_k = keys(e.key_dim), v = keys(e.value_dim), grad_v = keys(e.value_dim);
    p.q = fill(q, r, e.spread), p.k = fill(k, r, e.spread), p.v = fill(v, r, 1), p.grad_o = fill(grad_o, r, 1);
    if (S::softmax) lse = tensor<A, 4>({e.batch, e.heads, e.length, 2}, {0, 1, 2, 3}, e.where);
    if (shape.bias) {
      for (auto* t : {&bias, &grad_bias}) *t = tensor<A, 2>({e.heads, 2 * e.chunk - 1}, {0, 1}, e.where);
      p.bias = fill(bias, r, 1);
    }
    if (shape.alibi) {
      alibi = tensor<A, 2>({e.batch, e.heads}, {0, 1}, e.where);
      p.alibi = fill(alibi, r, 0.3);
    }
    if (shape.head_lengths) {
      head_lengths = tensor<index_t, 2>({e.batch, e.heads}, {0, 1}, e.where);
      for (index_t i = 0; i < e.batch * e.heads; i++)
        p.head_lengths.push_back(*head_lengths.at(i) = e.position + between(r, -int(e.chunk), int(e.length + e.chunk)));
    }
    if (e.lengths)
      for (index_t b = 0; b < e.batch; b++)  // in the sequence, after it, or before its chunk
        p.lengths.push_back(between(r, 0, 3)   ? e.position / e.chunk * e.chunk + between(r, 0, int(e.length + e.chunk))
                            : between(r, 0, 1) ? e.position / 2
                                               : 0);
    if (e.state_in || p.filled_before() > 0) {
      keys_in = state<T>(e.key_dim), values_in = state<T>(e.value_dim), grad_keys_in = state<A>(e.key_dim),
      grad_values_in = state<A>(e.value_dim);
      p.keys_in = fill(keys_in, r, e.spread, p.filled_before()), p.values_in = fill(values_in, r, 1, p.filled_before());
    }
    if (e.state_out) {
      keys_out = state<T>(e.key_dim), values_out = state<T>(e.value_dim), grad_keys_out = state<A>(e.key_dim),
      grad_values_out = state<A>(e.value_dim);
      p.grad_keys_out = fill(grad_keys_out, r, 1, p.filled_after()),
      p.grad_values_out = fill(grad_values_out, r, 1, p.filled_after());
    }
  }

  tensor<T, 4> sequence(index_t dim) const { return rows(e.heads, dim); }
  tensor<T, 4> keys(index_t dim) const { return rows(e.heads / e.group, dim); }
  tensor<T, 4> rows(index_t heads, index_t dim) const {
    if (e.heads_inside) return tensor<T, 4>({e.batch, heads, e.length, dim}, {0, 2, 1, 3}, e.where);
    return tensor<T, 4>({e.batch, heads, e.length, dim}, {0, 1, 2, 3}, e.where);
  }
  template <class E>
  tensor<E, 4> state(index_t dim) const {
    return tensor<E, 4>({e.batch, e.heads / e.group, e.chunk, dim}, {0, 1, 2, 3}, e.where);
  }
  /// Random numbers; of a state only those in the first slots, the others stay NaN.
  template <class E, int Rank>
  static std::vector<double> fill(tensor<E, Rank>& t, random_bits& r, double scale,
                                  index_t slots = std::numeric_limits<index_t>::max()) {
    auto const view = t.view();
    for (index_t i = 0; i < t.count(); i++)
      if (Rank != 4 || i / view.extent[Rank - 1] % view.extent[Rank - 2] < slots)
        *t.at(i) = from_double<E>(scale * uniform(r));
    return t.values();
  }

  tensor_view<index_t const, 1> lengths() const {
    if (p.lengths.empty()) return {};
    for (index_t b = 0; b < e.batch; b++) *lengths_given.at(b) = p.lengths[std::size_t(b)];
    return lengths_given.view();
  }
  /// The arguments of both passes that only some shapes have.
  void add_options(auto& a) const {
    a.alibi_slopes = alibi.view(), a.head_lengths = head_lengths.view(), a.window = e.window;
  }
  forward_args forward() const {
    forward_args a;
    add_options(a);
    a.q = q.view(), a.k = k.view(), a.v = v.view(), a.bias = bias.view(), a.lengths = lengths(),
    a.keys_in = keys_in.view();
    a.values_in = values_in.view(), a.o = o.view(), a.lse = lse.view(), a.keys_out = keys_out.view(),
    a.values_out = values_out.view();
    a.chunk = e.chunk, a.position = e.position, a.scale = e.scale, a.dropout = e.dropout, a.seed = p.seed,
    a.offset = p.offset;
    return a;
  }
  backward_args backward() const {
    backward_args a;
    add_options(a);
    a.q = q.view(), a.k = k.view(), a.v = v.view(), a.bias = bias.view(), a.lengths = lengths(),
    a.keys_in = keys_in.view();
    a.values_in = values_in.view(), a.grad_o = grad_o.view(), a.grad_keys_out = grad_keys_out.view(),
    a.grad_values_out = grad_values_out.view();
    if (S::softmax) a.o = o.view(), a.lse = lse.view();
    a.grad_q = grad_q.view(), a.grad_k = grad_k.view(), a.grad_v = grad_v.view(), a.grad_bias = grad_bias.view();
    a.grad_keys_in = grad_keys_in.view(), a.grad_values_in = grad_values_in.view();
    a.chunk = e.chunk, a.position = e.position, a.scale = e.scale, a.dropout = e.dropout, a.seed = p.seed,
    a.offset = p.offset;
    return a;
  }

  /// Calls with a workspace of exactly the size that the query returns.
  static void run_forward(forward_args const& a, std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    run_with_workspace<typename S::backend>(op::forward_workspace(executor, a),
                                            [&](workspace w) { return op::forward(executor, a, w); });
  }
  static void run_backward(backward_args const& a, std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    run_with_workspace<typename S::backend>(op::backward_workspace(executor, a),
                                            [&](workspace w) { return op::backward(executor, a, w); });
  }
  void run_forward(std::uint64_t seed) { run_forward(forward(), seed); }
  void run_backward(std::uint64_t seed) { run_backward(backward(), seed); }
  /// Expects that every gradient is optional. before_keys, before_values: those of the state.
  void expect_optional_gradients(backward_args const& args, tensor<A, 4>& before_keys, tensor<A, 4>& before_values) {
    using b = backward_args;
    expect_each_is_optional(
        args, [](b const& a) { run_backward(a, 1); }, std::pair{&b::grad_q, &grad_q}, std::pair{&b::grad_k, &grad_k},
        std::pair{&b::grad_v, &grad_v}, std::pair{&b::grad_bias, &grad_bias}, std::pair{&b::grad_keys_in, &before_keys},
        std::pair{&b::grad_values_in, &before_values});
  }

  /// Expects results within their bounds, and nothing else written.
  void expect_forward() const {
    use_arithmetic_of<T>();
    auto const exact = reference::attention::forward<bounded>(what, p);
    EXPECT_TRUE(matches(o, exact.o)) << "o";
    if (S::softmax) { EXPECT_TRUE(lse_matches(exact.lse)) << "lse"; }
    if (e.state_out) {
      EXPECT_TRUE(copied(keys_out, reference::attention::keys_out(p))) << "keys_out";
      EXPECT_TRUE(copied(values_out, reference::attention::values_out(p))) << "values_out";
    }
    EXPECT_TRUE(o.intact() && lse.intact() && keys_out.intact() && values_out.intact())
        << "written outside of a result";
    expect_inputs_untouched();
  }
  /// For a backward pass whose o and lse come from the forward pass.
  void expect_backward() const {
    use_arithmetic_of<T>();
    auto const exact = reference::attention::backward<bounded>(what, p);
    EXPECT_TRUE(matches(grad_q, exact.q)) << "grad_q";
    EXPECT_TRUE(matches(grad_k, exact.k)) << "grad_k";
    EXPECT_TRUE(matches(grad_v, exact.v)) << "grad_v";
    if (shape.bias) { EXPECT_TRUE(matches(grad_bias, exact.bias)) << "grad_bias"; }
    if (keys_in.present()) {
      EXPECT_TRUE(state_matches(grad_keys_in, exact.keys_in)) << "grad_keys_in";
      EXPECT_TRUE(state_matches(grad_values_in, exact.values_in)) << "grad_values_in";
    }
    EXPECT_TRUE(grad_q.intact() && grad_k.intact() && grad_v.intact() && grad_bias.intact() && grad_keys_in.intact() &&
                grad_values_in.intact())
        << "written outside of a gradient";
    expect_inputs_untouched();
  }

  std::vector<std::vector<unsigned char>> bits() const {
    return {o.bits(),      lse.bits(),    keys_out.bits(),  values_out.bits(),   grad_q.bits(),
            grad_k.bits(), grad_v.bits(), grad_bias.bits(), grad_keys_in.bits(), grad_values_in.bits()};
  }
  /// Log of the sum of exp(score) of each query, from its two statistics.
  tensor<double, 3> log_sums() const {
    tensor<double, 3> all({e.batch, e.heads, e.length}, {0, 1, 2});
    for (index_t i = 0; 2 * i < lse.count(); i++) *all.at(i) = double(*lse.at(2 * i)) + double(*lse.at(2 * i + 1));
    return all;
  }
  void clear() {
    for (auto* t : {&o, &keys_out, &values_out, &grad_q, &grad_k, &grad_v}) t->clear();
    grad_keys_in.clear(), grad_values_in.clear(), lse.clear(), grad_bias.clear();
  }
  void expect_inputs_untouched() const {
    EXPECT_TRUE(same(q, p.q) && same(k, p.k) && same(v, p.v) && same(bias, p.bias) && same(grad_o, p.grad_o) &&
                same(keys_in, p.keys_in) && same(values_in, p.values_in) && same(grad_keys_out, p.grad_keys_out) &&
                same(grad_values_out, p.grad_values_out))
        << "an input was written";
    EXPECT_TRUE(q.intact() && k.intact() && v.intact() && bias.intact() && lengths_given.intact() && grad_o.intact() &&
                keys_in.intact() && values_in.intact() && grad_keys_out.intact() && grad_values_out.intact() &&
                alibi.intact() && head_lengths.intact());
  }

  /// Within the bound of each number; in fp64 twice the bound, because the reference computes in fp64 too.
  template <class E, int Rank>
  static ::testing::AssertionResult matches(tensor<E, Rank> const& got, std::vector<bounded> const& exact) {
    std::vector<double> value, bound;
    for (auto const& b : exact)
      value.push_back(b.v), bound.push_back(b.e * (std::is_same_v<A, double> ? 2 : 1) + underflow<E>());
    return within(got, value, bound);
  }

 private:
  static bool same_number(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }
  template <class E, int Rank>
  static bool same(tensor<E, Rank> const& t, std::vector<double> const& values) {
    auto const now = t.present() ? t.values() : std::vector<double>{};
    return now.size() == (t.present() ? values.size() : 0) &&
           std::equal(now.begin(), now.end(), values.begin(), same_number);
  }
  // A state is a copy; slots that are not written stay NaN.
  static ::testing::AssertionResult copied(tensor<T, 4> const& got, std::vector<double> const& values) {
    auto const now = got.values();
    for (std::size_t i = 0; i < values.size(); i++)
      if (!same_number(now[i], values[i]))
        return ::testing::AssertionFailure() << "element " << i << " is " << now[i] << ", expected " << values[i];
    return ::testing::AssertionSuccess();
  }
  ::testing::AssertionResult lse_matches(std::vector<bounded> const& exact) const {
    auto finite = log_sums();
    std::vector<bounded> bounds = exact;
    for (std::size_t i = 0; i < exact.size(); i++) {
      bool const none = exact[i].v == -INFINITY;
      double const most = double(*lse.at(2 * index_t(i))), sum = double(*lse.at(2 * index_t(i) + 1));
      if (none && !(most == -INFINITY && sum == 0))
        return ::testing::AssertionFailure() << "row " << i << " has no valid key, but " << most << ", " << sum;
      if (none) *finite.at(index_t(i)) = 0, bounds[i] = bounded(0);
    }
    return matches(finite, bounds);
  }
  // Gradients of a state: filled slots are compared, the others must not be written.
  ::testing::AssertionResult state_matches(tensor<A, 4> const& got, std::vector<bounded> const& exact) const {
    index_t const dim = got.view().extent[3], filled = p.filled_before();
    tensor<A, 4> filled_slots({e.batch, e.heads / e.group, filled, dim}, {0, 1, 2, 3});
    std::vector<bounded> bounds;
    for (index_t i = 0; i < got.count(); i++) {
      if (i / dim % e.chunk < filled) {
        *filled_slots.at(index_t(bounds.size())) = *got.at(i);
        bounds.push_back(exact[std::size_t(i)]);
      } else if (!std::isnan(*got.at(i))) {
        return ::testing::AssertionFailure() << "slot " << i / dim % e.chunk << " of " << filled << " was written";
      }
    }
    return matches(filled_slots, bounds);
  }
};

}  // namespace tcnca::testing
