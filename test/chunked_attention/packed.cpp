// Packed sequences, slots of states, positions and random numbers in memory: each sequence against the reference, and,
// for one shape, against a call of its own.
#include "support/packed.hpp"
#include "cases.hpp"

namespace tcnca::testing {
namespace {

struct packed_softmax {
  static constexpr char const* name = "softmax";
  static constexpr chunked_attention_shape shape{.causal = true, .bias = true, .dropout = true, .packed = true};
};
struct packed_options {
  static constexpr char const* name = "options";
  static constexpr chunked_attention_shape shape{.function = attention_function::laplace,
                                                 .causal = true,
                                                 .alibi = true,
                                                 .window = true,
                                                 .grouped = true,
                                                 .head_lengths = true,
                                                 .packed = true};
};
struct packed_plain {
  static constexpr char const* name = "plain";
  static constexpr chunked_attention_shape shape{.bias = true, .packed = true};
};

/// A call with many sequences. The base class has the tensors of one call.
template <class S>
struct packed_attention_problem : attention_problem<S> {
  using base = attention_problem<S>;
  using typename base::A, typename base::T;

  packed_layout const& where;
  tensor<T, 4> before_k, before_v, after_k, after_v;
  tensor<A, 4> grad_after_k, grad_after_v, grad_before_k, grad_before_v;
  tensor<index_t, 1> lengths;
  tensor<A, 2> alibi;
  tensor<index_t, 2> head_lengths;
  tensor<uint64, 1> random_state;

  static attention_extents extents(attention_extents all, packed_layout const& l) {
    all.batch = l.packed() ? 1 : l.count(), all.length = l.packed() ? l.total() : l.longest();
    all.position = 0;
    return all;
  }
  packed_attention_problem(packed_layout const& l, attention_extents const& wanted, bool has_before, bool has_after,
                           std::uint64_t seed)
      : base(extents(wanted, l), seed), where(l) {
    random_bits r{seed};
    auto const rows = [&](auto& t, index_t dim) {
      using element = std::remove_reference_t<decltype(*t.at(0))>;
      t = tensor<element, 4>({where.state_rows(), wanted.heads / wanted.group, wanted.chunk, dim}, {0, 1, 2, 3},
                             wanted.where);
    };
    if (has_before) rows(before_k, wanted.key_dim), rows(before_v, wanted.value_dim);
    if (has_before) rows(grad_before_k, wanted.key_dim), rows(grad_before_v, wanted.value_dim);
    if (has_after) rows(after_k, wanted.key_dim), rows(after_v, wanted.value_dim);
    if (has_after) rows(grad_after_k, wanted.key_dim), rows(grad_after_v, wanted.value_dim);
    if (has_before) base::fill(before_k, r, 1), base::fill(before_v, r, 1);
    if (has_after) base::fill(grad_after_k, r, 1), base::fill(grad_after_v, r, 1);
    index_t const n = where.count();
    if (wanted.lengths) {
      lengths = tensor<index_t, 1>({n}, {0});
      for (index_t s = 0; s < n; s++)
        *lengths.at(s) = start(s, has_before) + between(r, 0, int(wanted.chunk + wanted.length));
    }
    if (S::shape.alibi) alibi = tensor<A, 2>({n, wanted.heads}, {0, 1}), base::fill(alibi, r, 0.3);
    if (S::shape.head_lengths) {
      head_lengths = tensor<index_t, 2>({n, wanted.heads}, {0, 1});
      for (index_t i = 0; i < n * wanted.heads; i++)
        *head_lengths.at(i) = start(i / wanted.heads, has_before) + between(r, 0, int(2 * wanted.chunk));
    }
    if (S::shape.dropout && seed % 2 == 0) {
      random_state = tensor<uint64, 1>({2}, {0});
      *random_state.at(0) = this->p.seed, *random_state.at(1) = this->p.offset;
    }
  }
  /// The position that a sequence has: without a state, the beginning of a chunk.
  index_t start(index_t s, bool has_before) const {
    index_t const at = where.position(s), chunk = this->e.chunk;
    return has_before && where.slot(s) >= 0 ? at : at / chunk * chunk;
  }

  void tables(auto& a) const {
    a.lengths = lengths.view(), a.alibi_slopes = alibi.view(), a.head_lengths = head_lengths.view();
    a.keys_in = before_k.view(), a.values_in = before_v.view();
    a.offsets = where.offsets.view(), a.max_length = where.max_length;
    a.slots = where.slots.view(), a.positions = where.positions.view();
    a.position = where.positions.present() ? 0 : where.common_position;
    a.random_state = random_state.view();
    if (random_state.present()) a.seed = a.offset = 1;  // are not used
  }
  auto all_forward() const {
    auto a = base::forward();
    tables(a);
    a.keys_out = after_k.view(), a.values_out = after_v.view();
    return a;
  }
  auto all_backward() const {
    auto a = base::backward();
    tables(a);
    a.grad_keys_out = grad_after_k.view(), a.grad_values_out = grad_after_v.view();
    a.grad_keys_in = grad_before_k.view(), a.grad_values_in = grad_before_v.view();
    return a;
  }
  /// A copy of the part of a tensor that belongs to sequence s, and of its row of the states.
  template <class E>
  tensor<E, 4> part(tensor<E, 4> const& t, index_t s) const {
    auto view = t.view();
    where.cut(view, s);
    return copy(view);
  }
  template <class E>
  tensor<E, 4> state_of(tensor<E, 4> const& t, index_t s) const {
    return copy(where.state(t.view(), s));
  }
  template <class E>
  static tensor<E, 4> copy(tensor_view<E, 4> const& view) {
    if (!view.present()) return {};
    tensor<E, 4> t({view.extent[0], view.extent[1], view.extent[2], view.extent[3]}, {0, 1, 2, 3});
    for (index_t i = 0; i < t.count(); i++) {
      index_t const d = view.extent[3], n = view.extent[2];
      *t.at(i) = *view.at(0, i / d / n % view.extent[1], i / d % n, i % d);
    }
    return t;
  }
  static std::vector<double> numbers(tensor<T, 4> const& t) { return t.present() ? t.values() : std::vector<double>{}; }

  /// Sequence s as a problem of its own.
  reference::attention::problem alone(index_t s) const {
    reference::attention::problem one = this->p;
    index_t const heads = this->e.heads;
    one.batch = 1, one.length = where.lengths[std::size_t(s)], one.position = start(s, before_k.present());
    one.number = s;
    one.q = part(this->q, s).values(), one.k = part(this->k, s).values(), one.v = part(this->v, s).values();
    one.grad_o = part(this->grad_o, s).values();
    one.lengths.clear(), one.alibi.clear(), one.head_lengths.clear();
    if (lengths.present()) one.lengths = {*lengths.at(s)};
    for (index_t h = 0; h < heads && alibi.present(); h++) one.alibi.push_back(*alibi.at(s * heads + h));
    for (index_t h = 0; h < heads && head_lengths.present(); h++)
      one.head_lengths.push_back(*head_lengths.at(s * heads + h));
    one.keys_in = numbers(state_of(before_k, s)), one.values_in = numbers(state_of(before_v, s));
    auto const of_after = [&](tensor<A, 4> const& t) {
      auto const state = state_of(t, s);
      return state.present() ? state.values() : std::vector<double>{};
    };
    one.grad_keys_out = of_after(grad_after_k), one.grad_values_out = of_after(grad_after_v);
    return one;
  }

  void check(std::uint64_t seed) {
    std::vector<reference::attention::problem> all;
    for (index_t s = 0; s < where.count(); s++) all.push_back(alone(s));
    base::run_forward(all_forward(), seed);
    base::run_backward(all_backward(), seed);
    use_arithmetic_of<T>();
    std::vector<reference::bounded> sum(std::size_t(this->grad_bias.count()));
    for (index_t s = 0; s < where.count(); s++) {
      SCOPED_TRACE(::testing::Message() << "sequence " << s);
      auto const& one = all[std::size_t(s)];
      auto const forward = reference::attention::forward<reference::bounded>(this->what, one);
      auto const backward = reference::attention::backward<reference::bounded>(this->what, one);
      EXPECT_TRUE(this->matches(part(this->o, s), forward.o)) << "o";
      EXPECT_TRUE(this->matches(part(this->grad_q, s), backward.q)) << "grad_q";
      EXPECT_TRUE(this->matches(part(this->grad_k, s), backward.k)) << "grad_k";
      EXPECT_TRUE(this->matches(part(this->grad_v, s), backward.v)) << "grad_v";
      for (std::size_t i = 0; i < sum.size(); i++) sum[i] = sum[i] + backward.bias[i];
      expect_state(after_k, s, reference::attention::keys_out(one), "keys_out");
      expect_state(after_v, s, reference::attention::values_out(one), "values_out");
      expect_gradient(grad_before_k, s, one.filled_before(), backward.keys_in, "grad_keys_in");
      expect_gradient(grad_before_v, s, one.filled_before(), backward.values_in, "grad_values_in");
    }
    if (S::shape.bias) { EXPECT_TRUE(this->matches(this->grad_bias, sum)) << "grad_bias"; }
    EXPECT_TRUE(this->o.intact() && this->lse.intact() && after_k.intact() && after_v.intact());
    EXPECT_TRUE(this->grad_q.intact() && this->grad_k.intact() && this->grad_v.intact() && this->grad_bias.intact() &&
                grad_before_k.intact() && grad_before_v.intact());
    expect_rows_of_no_sequence(after_k), expect_rows_of_no_sequence(grad_before_k);
    if constexpr (S::shape == packed_plain::shape) { expect_bits_of_calls_alone(seed); }
  }
  /// A call for each sequence, of the same shape without tables: the same bits, except where sums depend on the items.
  void expect_bits_of_calls_alone(std::uint64_t seed) {
    constexpr chunked_attention_shape unpacked{.bias = true};
    using call = chunked_attention<T, unpacked>;
    auto const of_o = this->o.bits(), of_lse = this->lse.bits(), of_k = this->grad_k.bits(), of_v = this->grad_v.bits();
    this->clear();
    auto const executor = S::backend::make(seed);
    for (index_t s = 0; s < where.count(); s++) {
      auto const cut = [&](auto& a, auto&... views) {
        (where.cut(views, s), ...);
        a.lengths = lengths.view(), a.position = start(s, false);
        if (a.lengths.present()) a.lengths.data += s, a.lengths.extent[0] = 1;
      };
      auto f = base::forward();
      cut(f, f.q, f.k, f.v, f.o, f.lse);
      run_with_workspace<typename S::backend>(call::forward_workspace(executor, f),
                                              [&](workspace w) { return call::forward(executor, f, w); });
      auto b = base::backward();
      cut(b, b.q, b.k, b.v, b.o, b.lse, b.grad_o, b.grad_q, b.grad_k, b.grad_v);
      run_with_workspace<typename S::backend>(call::backward_workspace(executor, b),
                                              [&](workspace w) { return call::backward(executor, b, w); });
    }
    EXPECT_TRUE(this->o.bits() == of_o && this->lse.bits() == of_lse) << "o, lse";
    EXPECT_TRUE(this->grad_k.bits() == of_k && this->grad_v.bits() == of_v) << "grad_k, grad_v";
  }

 private:
  void expect_state(tensor<T, 4> const& t, index_t s, std::vector<double> const& expected, char const* name) const {
    auto const state = state_of(t, s);
    if (!state.present()) return;
    auto const now = state.values();
    for (std::size_t i = 0; i < now.size(); i++)
      ASSERT_TRUE(now[i] == expected[i] || (std::isnan(now[i]) && std::isnan(expected[i]))) << name << " " << i;
  }
  void expect_gradient(tensor<A, 4> const& t, index_t s, index_t filled, std::vector<reference::bounded> exact,
                       char const* name) const {
    auto const state = state_of(t, s);
    if (!state.present()) return;
    index_t const dim = state.view().extent[3];
    for (index_t i = 0; i < state.count(); i++) {
      double const x = *state.at(i);
      auto const& y = exact[std::size_t(i)];
      if (i / dim % this->e.chunk < filled) ASSERT_LE(std::abs(x - y.v), y.e + underflow<A>()) << name << " " << i;
      else ASSERT_TRUE(std::isnan(x)) << name << " " << i << " was written";
    }
  }
  /// Rows that are no sequence's slot keep their NaN.
  template <class E>
  void expect_rows_of_no_sequence(tensor<E, 4> const& t) const {
    if (!t.present()) return;
    auto const view = t.view();
    for (index_t row = 0; row < view.extent[0]; row++) {
      bool used = false;
      for (index_t s = 0; s < where.count(); s++) used = used || where.slot(s) == row;
      if (!used) { ASSERT_TRUE(std::isnan(to_double(*view.at(row, 0, 0, 0)))) << "row " << row; }
    }
  }
};

template <class S>
struct chunked_attention_packed : ::testing::Test {};
using types = all_or_few<subjects<attention_case<float, packed_softmax>, attention_case<float, packed_options>,
                                  attention_case<bf16, packed_plain>>,
                         subjects<attention_case<float, packed_softmax>, attention_case<bf16, packed_softmax>>>;
TYPED_TEST_SUITE(chunked_attention_packed, types, subject_name);

TYPED_TEST(chunked_attention_packed, match_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 24);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    attention_extents e{.key_dim = 8 * between(r, 2, 4), .value_dim = 8 * between(r, 2, 6)};
    e.chunk = seed % 6 == 0 ? between(r, 200, 400) : between(r, 1, 40);
    e.group = S::shape.grouped ? between(r, 1, 2) : 1, e.heads = e.group * between(r, 1, 2);
    e.window = S::shape.window ? between(r, 1, 30) : 0, e.dropout = S::shape.dropout ? 0.3 : 0;
    e.lengths = between(r, 0, 1), e.heads_inside = between(r, 0, 1);
    bool const packed = seed % 3 != 0, before = S::causal && between(r, 0, 3), after = S::causal && between(r, 0, 1);
    auto lengths = random_lengths(r, e.chunk, seed % 6 == 0 ? 300 : 90, 5);
    if (!packed) lengths.assign(std::size_t(between(r, 1, 3)), between(r, 1, 30));
    auto where = packed_layout::make(lengths, packed, (before || after) && between(r, 0, 1), between(r, 0, 1), r);
    if (!before) where.common_position -= where.common_position % e.chunk;
    SCOPED_TRACE(::testing::Message() << where << ", " << e << (before ? ", state in" : "")
                                      << (after ? ", state out" : "") << ", TCNCA_TEST_SEED=" << seed);
    packed_attention_problem<S> problem(where, e, before, after, seed);
    problem.check(seed);
    if (this->HasFailure()) return;
  }
}

// One sequence is empty.
TYPED_TEST(chunked_attention_packed, gradients_are_optional) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  random_bits r{5};
  auto const where = packed_layout::make({50, 0, 21}, true, S::causal, true, r);
  attention_extents const e{
      .heads = 2, .chunk = 40, .dropout = S::shape.dropout ? 0.3 : 0, .window = S::shape.window ? 17 : 0};
  packed_attention_problem<S> problem(where, e, S::causal, S::causal, 2);
  problem.base::run_forward(problem.all_forward(), 1);
  problem.expect_optional_gradients(problem.all_backward(), problem.grad_before_k, problem.grad_before_v);
}

}  // namespace
}  // namespace tcnca::testing
