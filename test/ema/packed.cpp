// Packed sequences and state slots: the bits of one call for each sequence.
#include <algorithm>

#include "problem.hpp"
#include "support/packed.hpp"

namespace tcnca::testing {
namespace {

struct causal_skip {
  static constexpr char const* name = "causal_skip";
  static constexpr ema_shape shape{.states = 3, .skip = true};
};
struct causal_last {
  static constexpr char const* name = "causal_last";
  static constexpr ema_shape shape{.states = 4, .skip = false, .order = layout::batch_length_channels};
};
struct bidirectional_last {
  static constexpr char const* name = "bidirectional_last";
  static constexpr ema_shape shape{
      .states = 2, .dir = direction::bidirectional, .skip = true, .order = layout::batch_length_channels};
};

/// A call with many sequences, and the calls with one sequence each that it equals.
template <class S>
struct ema_packed_problem : ema_problem<S> {
  using base = ema_problem<S>;
  using typename base::A, typename base::T;
  static constexpr ema_shape shape = S::shape;

  packed_layout const& where;
  tensor<A, 3> states_in, states_out, grad_states_out, grad_states_in;

  ema_packed_problem(packed_layout const& l, index_t channels, bool has_state_in, bool has_state_out, placement place,
                     std::uint64_t seed)
      : base({.batch = l.packed() ? 1 : l.count(),
              .channels = channels,
              .length = l.packed() ? l.total() : l.longest(),
              .where = place},
             seed),
        where(l) {
    random_bits r{seed};
    auto const add = [&](tensor<A, 3>& t) {
      t = tensor<A, 3>({where.state_rows(), channels, shape.states}, {0, 1, 2}, place);
    };
    if (has_state_in) add(states_in), add(grad_states_in), fill(states_in, r, 1);
    if (has_state_out) add(states_out), add(grad_states_out), fill(grad_states_out, r, 1);
  }

  auto all_forward() const {
    auto a = base::forward();
    a.state_in = states_in.view(), a.state_out = states_out.view();
    a.offsets = where.offsets.view(), a.max_length = where.max_length, a.slots = where.slots.view();
    return a;
  }
  auto all_backward() const {
    auto a = base::backward();
    a.state_in = states_in.view();
    a.grad_state_out = grad_states_out.view(), a.grad_state_in = grad_states_in.view();
    a.offsets = where.offsets.view(), a.max_length = where.max_length, a.slots = where.slots.view();
    return a;
  }
  /// The arguments for sequence s alone.
  template <class Args>
  Args alone(Args a, index_t s) const {
    where.cut(a.x, s), a.state_in = where.state(a.state_in, s);
    if constexpr (requires { a.y; }) {
      where.cut(a.y, s), a.state_out = where.state(a.state_out, s);
    } else {
      where.cut(a.grad_y, s), where.cut(a.grad_x, s);
      a.grad_state_out = where.state(a.grad_state_out, s), a.grad_state_in = where.state(a.grad_state_in, s);
    }
    a.offsets = {}, a.max_length = 0, a.slots = {};
    return a;
  }

  void expect_forward_equal(std::uint64_t seed, bool in_place) {
    auto a = all_forward();
    auto const initial = states_in.values();
    if (in_place) a.state_out = states_in.view();
    auto const& last = in_place ? states_in : states_out;
    base::run_forward(a, seed);
    auto const of_y = this->y.bits(), states = last.bits();
    this->y.clear();
    if (in_place) states_in.assign(initial);
    else if (states_out.present()) states_out.clear();
    for (index_t s = 0; s < where.count(); s++) base::run_forward(alone(a, s), seed);
    EXPECT_TRUE(this->y.bits() == of_y) << "y";
    EXPECT_TRUE(last.bits() == states) << "states";
    if (in_place) states_in.assign(initial);
    EXPECT_TRUE(this->y.intact() && states_in.intact() && states_out.intact()) << "written outside";
  }

  void expect_backward_equal(std::uint64_t seed) {
    auto const a = all_backward();
    clear();
    base::run_backward(a, seed);
    auto const first = bits();
    clear();
    base::run_backward(a, seed + 1);  // with another number of threads
    EXPECT_TRUE(bits() == first) << "not the same from run to run";
    expect_parameters_within_bounds();
    auto const of_x = this->grad_x.bits(), states = grad_states_in.bits();
    clear();
    for (index_t s = 0; s < where.count(); s++) {
      auto one = alone(a, s);
      if (!one.state_in.given()) one.grad_state_in = {};
      base::run_backward(one, seed);
    }
    EXPECT_TRUE(this->grad_x.bits() == of_x) << "grad_x";
    EXPECT_TRUE(grad_states_in.bits() == states) << "grad_state_in";
    EXPECT_TRUE(grad_states_in.intact() && this->grad_x.intact()) << "written outside";
    this->expect_inputs_untouched();
  }

 private:
  std::vector<std::vector<unsigned char>> bits() const {
    auto all = base::bits();
    all.push_back(grad_states_in.bits());
    return all;
  }
  void clear() {
    base::clear();
    if (grad_states_in.present()) grad_states_in.clear();
  }
  template <class View>
  static std::vector<double> values(View const& v) {
    std::vector<double> all;
    for (index_t c = 0; c < v.extent[1]; c++)
      for (index_t i = 0; i < v.extent[2]; i++) all.push_back(to_double(*v.at(0, c, i)));
    return all;
  }
  /// The gradients of the parameters are the sums of those of all sequences in the reference.
  void expect_parameters_within_bounds() const {
    use_arithmetic_of<T>();
    reference::ema::gradients<reference::ema::bounded> sum;
    auto const add = [](std::vector<reference::ema::bounded>& to, std::vector<reference::ema::bounded> const& terms) {
      to.resize(terms.size());
      for (std::size_t i = 0; i < to.size(); i++) to[i] = to[i] + terms[i];
    };
    for (index_t s = 0; s < where.count(); s++) {
      auto part = this->x.view(), gradient = this->grad_y.view();
      where.cut(part, s), where.cut(gradient, s);
      reference::ema::problem one = this->p;
      one.batch = 1, one.length = where.lengths[std::size_t(s)], one.x = values(part), one.grad_y = values(gradient);
      one.state_in = values(where.state(states_in.view(), s));
      one.grad_state_out = values(where.state(grad_states_out.view(), s));
      auto const r = reference::ema::backward<reference::ema::bounded>(this->what, one);
      add(sum.delta, r.delta), add(sum.alpha, r.alpha), add(sum.beta, r.beta), add(sum.gamma, r.gamma);
      add(sum.omega, r.omega);
    }
    if (where.count() == 0) return;
    base::expect_parameters(sum);
    if (shape.skip) { EXPECT_TRUE(base::matches(this->grad_omega, sum.omega)) << "grad_omega"; }
  }
};

template <class S>
struct ema_packed : ::testing::Test {
  static void check(packed_layout const& l, index_t channels, bool state_in, bool state_out, placement place,
                    std::uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << l << ", channels " << channels << (state_in ? ", state in" : "")
                                      << (state_out ? ", state out" : "") << ", padding " << place.padding << ", seed "
                                      << seed);
    ema_packed_problem<S> problem(l, channels, state_in, state_out, place, seed);
    problem.expect_forward_equal(seed, false);
    if (state_in && state_out) problem.expect_forward_equal(seed, true);
    problem.expect_backward_equal(seed);
  }
};
TYPED_TEST_SUITE_P(ema_packed);

TYPED_TEST_P(ema_packed, equals_separate_calls_at_random_lengths) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 20);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    index_t const channels = between(r, 0, 8) == 0 ? 0 : between(r, 1, 21);
    bool const packed = between(r, 0, 3) > 0;
    auto lengths = random_lengths(r, 8, between(r, 0, 3) == 0 ? 2 * S::tile + 5 : 90);
    if (!packed) std::fill(lengths.begin(), lengths.end(), between(r, 0, 1) ? 1 : 50);
    bool const state_in = S::causal && between(r, 0, 1), state_out = S::causal && between(r, 0, 1),
               has_state = state_in || state_out;
    auto const l = packed_layout::make(lengths, packed, has_state && (!packed || between(r, 0, 1)), false, r);
    placement const place = between(r, 0, 1) ? placement{between(r, 0, 9), between(r, 0, 9)} : placement{};
    this->check(l, channels, state_in, state_out, place, seed);
    if (this->HasFailure()) return;
  }
}

// Sums of many short sequences, and of more than one partial sum.
TYPED_TEST_P(ema_packed, equals_separate_calls_of_many_short_ones_and_a_long_one) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  random_bits r{3};
  std::vector<index_t> lengths(100);
  for (index_t& n : lengths) n = between(r, 0, 70);
  lengths[20] = 2100;
  this->check(packed_layout::make(lengths, true, false, false, r), 3, S::causal, false, {}, 1);
}

REGISTER_TYPED_TEST_SUITE_P(ema_packed, equals_separate_calls_at_random_lengths,
                            equals_separate_calls_of_many_short_ones_and_a_long_one);
using types = subjects<ema_case<float, causal_skip>, ema_case<bf16, causal_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, ema_packed, types, subject_name);
using more_types = subjects_on_one<ema_case<double, bidirectional_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on_one, ema_packed, more_types, subject_name);

}  // namespace
}  // namespace tcnca::testing
