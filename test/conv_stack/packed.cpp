// Packed sequences, state slots and positions in memory: the bits of one call for each sequence.
#include "cases.hpp"
#include "support/packed_problem.hpp"

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

template <class S>
struct conv_stack_packed_problem : packed_problem<conv_stack_packed_problem<S>, conv_stack_problem<S>> {
  using base = packed_problem<conv_stack_packed_problem<S>, conv_stack_problem<S>>;
  using typename base::A, typename base::T;

  conv_stack_packed_problem(packed_layout const& l, index_t channels, placement place, std::uint64_t seed)
      : base(l, extents{.channels = channels}, place, seed) {
    this->want_gradients();
  }
  tensor<A, 3> state() const {
    return tensor<A, 3>::sequence(S::shape.order, this->where.state_rows(), this->e.channels, S::op::state_length,
                                  this->e.where);
  }
  void for_each_parameter(auto f) { f(this->grad_weight), f(this->grad_bias), f(this->grad_omega); }
  /// The gradients of the parameters are the sums of those of all sequences in the reference.
  void expect_parameters_within_bounds() const {
    use_arithmetic_of<T>();
    std::vector<reference::bounded> sum_of_weight(std::size_t(this->grad_weight.count())),
        sum_of_bias(std::size_t(this->grad_bias.count())), sum_of_omega(std::size_t(this->grad_omega.count()));
    auto const add = [](std::vector<reference::bounded>& sum, reference::field const& f) {
      auto const numbers = f.numbers();
      for (std::size_t i = 0; i < sum.size(); i++) sum[i] = sum[i] + numbers[i];
    };
    for (index_t s = 0; s < this->where.count(); s++) {
      reference::problem one = this->p;
      one.batch = 1, one.length = this->where.lengths[std::size_t(s)], one.position = this->where.position(s);
      one.x = base::part(this->x, s), one.grad_y = base::part(this->grad_y, s);
      one.state_in = base::state_of(this->states_in, s), one.grad_state_out = base::state_of(this->grad_states_out, s);
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
struct conv_stack_packed : ::testing::Test {};
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
    check_packed<conv_stack_packed_problem<S>>(l, channels, state_in, state_out, place, seed);
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
    check_packed<conv_stack_packed_problem<S>>(l, between(r, 1, 9), true, seed % 5 != 0, {int(seed % 3), int(seed % 4)},
                                               seed);
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
  check_packed<conv_stack_packed_problem<S>>(packed_layout::make(lengths, true, false, false, r), 5, false, false, {},
                                             1);
  lengths.resize(3);
  lengths[1] = S::backend::is_fiber ? 700 : 5000;
  check_packed<conv_stack_packed_problem<S>>(packed_layout::make(lengths, true, false, false, r), 2, false, S::causal,
                                             {}, 2);
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
