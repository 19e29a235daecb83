// Packed sequences and state slots: the bits of one call for each sequence.
#include "problem.hpp"
#include "support/packed_problem.hpp"

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

template <class S>
struct ema_packed_problem : packed_problem<ema_packed_problem<S>, ema_problem<S>> {
  using base = packed_problem<ema_packed_problem<S>, ema_problem<S>>;
  using typename base::A, typename base::T;

  ema_packed_problem(packed_layout const& l, index_t channels, placement place, std::uint64_t seed)
      : base(l, average_extents{.channels = channels}, place, seed) {}
  tensor<A, 3> state() const {
    return tensor<A, 3>({this->where.state_rows(), this->e.channels, S::shape.states}, {0, 1, 2}, this->e.where);
  }
  void for_each_parameter(auto f) {
    f(this->grad_delta), f(this->grad_alpha), f(this->grad_beta), f(this->grad_gamma), f(this->grad_omega);
  }
  /// The gradients of the parameters are the sums of those of all sequences in the reference.
  void expect_parameters_within_bounds() const {
    use_arithmetic_of<T>();
    reference::ema::gradients<reference::ema::bounded> sum;
    auto const add = [](std::vector<reference::ema::bounded>& to, std::vector<reference::ema::bounded> const& terms) {
      to.resize(terms.size());
      for (std::size_t i = 0; i < to.size(); i++) to[i] = to[i] + terms[i];
    };
    for (index_t s = 0; s < this->where.count(); s++) {
      reference::ema::problem one = this->p;
      one.batch = 1, one.length = this->where.lengths[std::size_t(s)];
      one.x = base::part(this->x, s), one.grad_y = base::part(this->grad_y, s);
      one.state_in = base::state_of(this->states_in, s), one.grad_state_out = base::state_of(this->grad_states_out, s);
      auto const r = reference::ema::backward<reference::ema::bounded>(this->what, one);
      add(sum.delta, r.delta), add(sum.alpha, r.alpha), add(sum.beta, r.beta), add(sum.gamma, r.gamma);
      add(sum.omega, r.omega);
    }
    if (this->where.count() == 0) return;
    base::expect_parameters(sum);
    if (S::shape.skip) { EXPECT_TRUE(base::matches(this->grad_omega, sum.omega)) << "grad_omega"; }
  }
};

template <class S>
struct ema_packed : ::testing::Test {};
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
    check_packed<ema_packed_problem<S>>(l, channels, state_in, state_out, place, seed);
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
  check_packed<ema_packed_problem<S>>(packed_layout::make(lengths, true, false, false, r), 3, S::causal, false, {}, 1);
}

REGISTER_TYPED_TEST_SUITE_P(ema_packed, equals_separate_calls_at_random_lengths,
                            equals_separate_calls_of_many_short_ones_and_a_long_one);
using types = subjects<ema_case<float, causal_skip>, ema_case<bf16, causal_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, ema_packed, types, subject_name);
using more_types = subjects_on_one<ema_case<double, bidirectional_last>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on_one, ema_packed, more_types, subject_name);

}  // namespace
}  // namespace tcnca::testing
