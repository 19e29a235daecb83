// Packed sequences, state slots and positions in memory: the bits of one call for each sequence.
#include <algorithm>

#include "cases.hpp"
#include "support/packed.hpp"

namespace tcnca::testing {
namespace {

template <layout Order>
struct long_field {  // sequences of up to seven positions use the step kernel
  static constexpr char const* name = Order == layout::batch_channels_length ? "long_field" : "long_field_last";
  static constexpr conv_stack_shape shape{.taps = 4,
                                          .dilations = {1, 6, 3, 30},
                                          .act = activation::silu,
                                          .residuals = residual::level,
                                          .bias = true,
                                          .skip = true,
                                          .order = Order};
};
using long_field_first = long_field<layout::batch_channels_length>;
using long_field_last = long_field<layout::batch_length_channels>;

/// On the CPU the default tuning; else small tiles and segments.
template <class T, class Case>
struct packed_tuning {
  using default_tuning = default_conv_stack_tuning<T, Case::shape>;
  static constexpr conv_stack_policy forward(target t) {
    return t.compute_capability == 0 ? default_tuning::forward(t) : small_tuning<T>::forward(t);
  }
  static constexpr conv_stack_policy backward(target t) {
    return t.compute_capability == 0 ? default_tuning::backward(t) : small_tuning<T>::backward(t);
  }
};
template <class T, class Case>
using packed_case = stack_case<T, Case, packed_tuning<T, Case>>;

/// A call with many sequences, and the calls with one sequence each that it equals.
template <class S>
struct conv_stack_packed_problem : conv_stack_problem<S> {
  using base = conv_stack_problem<S>;
  using typename base::A, typename base::T;
  static constexpr layout order = S::shape.order;

  packed_layout const& where;
  tensor<A, 3> states_in, states_out, grad_states_out, grad_states_in;

  conv_stack_packed_problem(packed_layout const& l, index_t channels, bool has_state_in, bool has_state_out,
                            placement place, std::uint64_t seed)
      : base({.batch = l.packed() ? 1 : l.count(),
              .channels = channels,
              .length = l.packed() ? l.total() : l.longest(),
              .position = l.common_position,
              .where = place},
             seed),
        where(l) {
    random_bits r{seed};
    this->want_gradients();
    auto const add = [&](tensor<A, 3>& t) {
      t = tensor<A, 3>::sequence(order, where.state_rows(), channels, S::op::state_length, place);
    };
    if (has_state_in) add(states_in), add(grad_states_in), fill(states_in, r, 1);
    if (has_state_out) add(states_out), add(grad_states_out), fill(grad_states_out, r, 1);
  }

  template <class Args>
  Args with_tables(Args a) const {
    a.state_in = states_in.view();
    a.offsets = where.offsets.view(), a.max_length = where.max_length;
    a.slots = where.slots.view(), a.positions = where.positions.view();
    return a;
  }
  auto all_forward() const {
    auto a = with_tables(base::forward());
    a.state_out = states_out.view();
    return a;
  }
  auto all_backward() const {
    auto a = with_tables(base::backward());
    a.grad_state_out = grad_states_out.view(), a.grad_state_in = grad_states_in.view();
    return a;
  }
  /// The arguments for sequence s alone.
  template <class Args>
  Args alone(Args a, index_t s) const {
    where.cut(a.x, s), a.state_in = where.state(a.state_in, s), a.position = where.position(s);
    if constexpr (requires { a.y; }) {
      where.cut(a.y, s), a.state_out = where.state(a.state_out, s);
    } else {
      where.cut(a.grad_y, s), where.cut(a.grad_x, s);
      a.grad_state_out = where.state(a.grad_state_out, s), a.grad_state_in = where.state(a.grad_state_in, s);
    }
    a.offsets = {}, a.max_length = 0, a.slots = {}, a.positions = {};
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

  std::vector<std::vector<unsigned char>> parameter_gradients() const {
    return {this->grad_weight.bits(), this->grad_bias.bits(), this->grad_omega.bits()};
  }
  void clear_gradients() {
    this->grad_x.clear(), this->grad_weight.clear();
    if (grad_states_in.present()) grad_states_in.clear();
  }
  void expect_backward_equal(std::uint64_t seed) {
    auto const a = all_backward();
    base::run_backward(a, seed);
    auto const of_x = this->grad_x.bits(), states = grad_states_in.bits();
    auto const parameters = parameter_gradients();
    clear_gradients();
    base::run_backward(a, seed + 1);  // with another number of threads
    EXPECT_TRUE(this->grad_x.bits() == of_x && grad_states_in.bits() == states && parameter_gradients() == parameters)
        << "not the same from run to run";
    expect_parameters_within_bounds();
    clear_gradients();
    for (index_t s = 0; s < where.count(); s++) {
      auto one = alone(a, s);
      if (!one.state_in.given()) one.grad_state_in = {};
      base::run_backward(one, seed);
    }
    EXPECT_TRUE(this->grad_x.bits() == of_x) << "grad_x";
    EXPECT_TRUE(grad_states_in.bits() == states) << "grad_state_in";
    EXPECT_TRUE(grad_states_in.intact()) << "written outside";
    this->expect_gradients_intact();
    this->expect_inputs_untouched();
  }

 private:
  /// The part of a row-major [batch, channels, length] that belongs to sequence s.
  std::vector<double> part(tensor<T, 3> const& t, index_t s) const {
    auto v = t.view();
    where.cut(v, s);
    std::vector<double> all;
    for (index_t c = 0; c < v.extent[1]; c++)
      for (index_t i = 0; i < v.extent[2]; i++) all.push_back(to_double(*v.at(0, c, i)));
    return all;
  }
  std::vector<double> state_values(tensor<A, 3> const& t, index_t s) const {
    auto const v = where.state(t.view(), s);
    std::vector<double> all;
    for (index_t c = 0; c < v.extent[1]; c++)
      for (index_t i = 0; i < v.extent[2]; i++) all.push_back(*v.at(0, c, i));
    return all;
  }
  /// The gradients of the parameters are the sums of those of all sequences in the reference.
  void expect_parameters_within_bounds() const {
    use_arithmetic_of<T>();
    std::vector<reference::bounded> sum_of_weight(std::size_t(this->grad_weight.count())),
        sum_of_bias(std::size_t(this->grad_bias.count())), sum_of_omega(std::size_t(this->grad_omega.count()));
    auto const add = [](std::vector<reference::bounded>& sum, reference::field const& f) {
      auto const numbers = f.numbers();
      for (std::size_t i = 0; i < sum.size(); i++) sum[i] = sum[i] + numbers[i];
    };
    for (index_t s = 0; s < where.count(); s++) {
      reference::problem one = this->p;
      one.batch = 1, one.length = where.lengths[std::size_t(s)], one.position = where.position(s);
      one.x = part(this->x, s), one.grad_y = part(this->grad_y, s);
      one.state_in = state_values(states_in, s), one.grad_state_out = state_values(grad_states_out, s);
      auto const r = reference::backward(this->stack, one);
      add(sum_of_weight, r.grad_weight), add(sum_of_bias, r.grad_bias), add(sum_of_omega, r.grad_omega);
    }
    auto const expect = [](auto const& got, std::vector<reference::bounded> const& sum, char const* name) {
      std::vector<double> value, error;
      for (auto const& b : sum) value.push_back(b.v), error.push_back(b.e);
      if (got.present()) { EXPECT_TRUE(within(got, value, error)) << name; }
    };
    expect(this->grad_weight, sum_of_weight, "grad_weight");
    expect(this->grad_bias, sum_of_bias, "grad_bias");
    expect(this->grad_omega, sum_of_omega, "grad_omega");
  }
};

template <class S>
struct conv_stack_packed : ::testing::Test {
  static void check(packed_layout const& l, index_t channels, bool state_in, bool state_out, placement place,
                    std::uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << l << ", channels " << channels << (state_in ? ", state in" : "")
                                      << (state_out ? ", state out" : "") << ", padding " << place.padding << ", seed "
                                      << seed);
    conv_stack_packed_problem<S> problem(l, channels, state_in, state_out, place, seed);
    problem.expect_forward_equal(seed, false);
    if (state_in && state_out) problem.expect_forward_equal(seed, true);
    problem.expect_backward_equal(seed);
  }
};
TYPED_TEST_SUITE_P(conv_stack_packed);

TYPED_TEST_P(conv_stack_packed, equals_separate_calls_at_random_lengths) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 24);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    index_t const channels = between(r, 0, 8) == 0 ? 0 : between(r, 1, S::backend::is_fiber ? 5 : 21);
    auto const lengths = random_lengths(r, 8, 2 * S::op::receptive_field + (between(r, 0, 2) == 0 ? 400 : 0));
    bool const state_in = S::causal && between(r, 0, 1), state_out = S::causal && between(r, 0, 1),
               has_state = state_in || state_out;
    auto const l = packed_layout::make(lengths, true, has_state && between(r, 0, 1), between(r, 0, 1), r);
    placement const place = between(r, 0, 1) ? placement{between(r, 0, 9), between(r, 0, 9)} : placement{};
    this->check(l, channels, state_in, state_out, place, seed);
    if (this->HasFailure()) return;
  }
}

// Batches whose sequences have slots and positions, down to one token each, as a server of many streams calls it.
TYPED_TEST_P(conv_stack_packed, equals_separate_calls_in_a_batch) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!S::causal) return;
  for (std::uint64_t seed = 1; seed <= 12; seed++) {
    random_bits r{seed};
    index_t const length = seed % 3 == 0 ? between(r, 2, 200) : seed % 3;
    std::vector<index_t> const lengths(std::size_t(between(r, 1, 40)), length);
    auto const l = packed_layout::make(lengths, false, seed % 4 != 1, seed % 4 != 2, r);
    this->check(l, between(r, 1, 9), true, seed % 5 != 0, {int(seed % 3), int(seed % 4)}, seed);
    if (this->HasFailure()) return;
  }
}

// Many short sequences and one long one.
TYPED_TEST_P(conv_stack_packed, equals_separate_calls_of_many_short_ones_and_a_long_one) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  random_bits r{3};
  std::vector<index_t> lengths(100);
  for (index_t& n : lengths) n = between(r, 0, 70);
  this->check(packed_layout::make(lengths, true, false, false, r), 5, false, false, {}, 1);
  lengths.resize(3);
  lengths[1] = S::backend::is_fiber ? 700 : 5000;
  this->check(packed_layout::make(lengths, true, false, false, r), 2, false, S::causal, {}, 2);
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_packed, equals_separate_calls_at_random_lengths,
                            equals_separate_calls_in_a_batch, equals_separate_calls_of_many_short_ones_and_a_long_one);
using types = subjects<packed_case<float, long_field_first>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_packed, types, subject_name);
using more_types = all_or_few<subjects_on_one<packed_case<bf16, small_list>, packed_case<double, long_field_last>,
                                              packed_case<fp16, bidirectional_last>>,
                              subjects_on_one<packed_case<bf16, long_field_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on_one, conv_stack_packed, more_types, subject_name);

}  // namespace
}  // namespace tcnca::testing
