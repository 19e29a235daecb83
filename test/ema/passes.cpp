// The exponential moving average: forward, backward and its kernel against the reference, on every backend.
#include "problem.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct ema_test : ::testing::Test {};
TYPED_TEST_SUITE_P(ema_test);

TYPED_TEST_P(ema_test, matches_the_reference_at_edges) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  index_t const t = S::tile;
  std::uint64_t seed = 1;
  for (index_t const length : {index_t(0), index_t(1), index_t(2), index_t(17), t - 1, t, t + 1, 3 * t - 2}) {
    for (int state = 0; state < (S::causal ? 4 : 1); state++) {
      average_extents e{
          .batch = 2, .channels = 3, .length = length, .state_in = (state & 1) != 0, .state_out = (state & 2) != 0};
      e.where = seed % 2 ? placement{} : placement{int(seed % 5), int(seed % 3)};
      SCOPED_TRACE(::testing::Message() << e << ", seed " << seed);
      ema_problem<S> problem(e, seed);
      problem.run_forward(seed);
      problem.expect_forward();
      problem.run_backward(seed);
      problem.expect_backward();
      if (this->HasFailure()) return;
      seed++;
    }
  }
}

TYPED_TEST_P(ema_test, matches_the_reference_at_random_extents) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 12);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits r{seed};
    average_extents e{.batch = between(r, 0, 3), .channels = between(r, 0, 20), .length = between(r, 0, 300)};
    e.state_in = S::causal && between(r, 0, 1), e.state_out = S::causal && between(r, 0, 1);
    if (between(r, 0, 1)) e.where = {between(r, 0, 9), between(r, 0, 9)};
    SCOPED_TRACE(::testing::Message() << e << ", TCNCA_TEST_SEED=" << seed);
    ema_problem<S> problem(e, seed);
    problem.run_forward(seed);
    problem.expect_forward();
    problem.run_backward(seed);
    problem.expect_backward();
    if (this->HasFailure()) return;
  }
}

// Sequences longer than one fp32 partial sum. (common/long_sums.cpp tests the precision.)
TYPED_TEST_P(ema_test, matches_the_reference_beyond_one_partial_sum) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  index_t const length = 2 * (1024 / (S::policy.outputs_per_thread * S::policy.rounds)) * S::tile + 3;
  if (length > 20000) return;  // all threads share one channel
  ema_problem<S> problem({.batch = 2, .channels = 3, .length = length, .state_in = S::causal, .state_out = S::causal},
                         9);
  for (std::uint64_t seed = 1; seed <= 2; seed++) {
    problem.run_forward(seed);
    problem.run_backward(seed);
    problem.expect_backward();
  }
}

TYPED_TEST_P(ema_test, kernel_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  std::uint64_t seed = 1;
  for (index_t const length : {0, 1, 2, 63, 64, 65, 1000, 3001}) {
    average_extents e{.batch = 1, .channels = 2, .length = length};
    e.where = seed % 2 ? placement{} : placement{int(seed % 5), int(seed % 3)};
    SCOPED_TRACE(::testing::Message() << e << ", seed " << seed);
    ema_problem<S>(e, seed).run_kernel(seed);
    if (this->HasFailure()) return;
    seed++;
  }
}

TYPED_TEST_P(ema_test, repeats_bit_by_bit) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  ema_problem<S> problem(
      {.batch = 2, .channels = 3, .length = 2 * S::tile + 3, .state_in = S::causal, .state_out = S::causal}, 7);
  problem.run_forward(0);
  problem.run_backward(0);
  auto const first = problem.bits();
  for (std::uint64_t seed = 1; seed <= environment("TCNCA_TEST_ORDERS", 8); seed++) {
    problem.clear();
    problem.run_forward(seed);
    problem.run_backward(seed);
    ASSERT_TRUE(problem.bits() == first) << "seed " << seed;
  }
}

// Two calls joined by the state equal one call; on the CPU bit for bit, and in place.
TYPED_TEST_P(ema_test, pieces_equal_one_call) {
  using S = TypeParam;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  if constexpr (S::causal) {
    index_t const length = S::tile + 21;
    ema_problem<S> whole({.batch = 2, .channels = 3, .length = length, .state_in = true, .state_out = true}, 5);
    whole.run_forward(0);
    auto const y = whole.y.bits(), end = whole.state_out.bits();
    for (index_t const cut : {index_t(0), index_t(1), index_t(7), S::tile, length - 1, length}) {
      SCOPED_TRACE(::testing::Message() << "cut at " << cut);
      auto state = whole.template new_state<A>();
      for (index_t i = 0; i < state.count(); i++) *state.at(i) = *whole.state_in.at(i);
      auto first = whole.forward(), second = first;
      first.x.extent[2] = first.y.extent[2] = cut;
      second.x.extent[2] = second.y.extent[2] = length - cut;
      second.x.data += cut * second.x.stride[2], second.y.data += cut * second.y.stride[2];
      first.state_in = second.state_in = state.view(), first.state_out = second.state_out = state.view();
      whole.y.clear();
      ema_problem<S>::run_forward(first, 1);
      ema_problem<S>::run_forward(second, 2);
      for (index_t i = 0; i < state.count(); i++) *whole.state_out.at(i) = *state.at(i);
      whole.expect_forward();
      if constexpr (!S::shared) { EXPECT_TRUE(whole.y.bits() == y && whole.state_out.bits() == end); }
    }
  }
}

// An infinity changes its own channel from its position on, and neither earlier positions nor other channels.
TYPED_TEST_P(ema_test, infinity_propagates_causally) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if constexpr (S::causal) {
    index_t const length = 2 * S::tile, spoilt = S::tile + 20;
    ema_problem<S> problem({.batch = 1, .channels = 3, .length = length}, 6);
    problem.run_forward(1);
    auto const y = problem.y.values();
    *problem.x.at(length + spoilt) = from_double<typename S::T>(INFINITY);
    problem.run_forward(1);
    auto const z = problem.y.values();
    for (index_t c = 0; c < 3; c++)
      for (index_t t = 0; t < length; t++) {
        auto const i = std::size_t(c * length + t);
        if (c != 1 || t < spoilt) {
          ASSERT_EQ(z[i], y[i]) << "channel " << c << ", position " << t;
        } else if (t == spoilt) {
          ASSERT_FALSE(std::isfinite(z[i]) && z[i] != 0);  // the SiLU of minus infinity is 0 or NaN
        }
      }
  }
}

TYPED_TEST_P(ema_test, absent_gradients_change_no_others) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  ema_problem<S> p({.batch = 2, .channels = 3, .length = 40, .state_in = S::causal, .state_out = S::causal}, 7);
  auto const args = p.backward();
  using b = std::remove_const_t<decltype(args)>;
  expect_each_is_optional(
      args, [](b const& a) { ema_problem<S>::run_backward(a, 1); }, std::pair{&b::grad_x, &p.grad_x},
      std::pair{&b::grad_delta, &p.grad_delta}, std::pair{&b::grad_alpha, &p.grad_alpha},
      std::pair{&b::grad_beta, &p.grad_beta}, std::pair{&b::grad_gamma, &p.grad_gamma},
      std::pair{&b::grad_omega, &p.grad_omega}, std::pair{&b::grad_state_in, &p.grad_state_in});
}

REGISTER_TYPED_TEST_SUITE_P(ema_test, matches_the_reference_at_edges, matches_the_reference_at_random_extents,
                            matches_the_reference_beyond_one_partial_sum, kernel_matches_the_reference,
                            repeats_bit_by_bit, pieces_equal_one_call, infinity_propagates_causally,
                            absent_gradients_change_no_others);

struct plain {
  static constexpr char const* name = "plain";
  static constexpr ema_shape shape{};
};
struct three_states_last {
  static constexpr char const* name = "three_states_last";
  static constexpr ema_shape shape{.states = 3, .order = layout::batch_length_channels};
};
struct bidirectional {
  static constexpr char const* name = "bidirectional";
  static constexpr ema_shape shape{.states = 5, .dir = direction::bidirectional};
};
struct bidirectional_bare_last {
  static constexpr char const* name = "bidirectional_bare_last";
  static constexpr ema_shape shape{
      .states = 2, .dir = direction::bidirectional, .skip = false, .order = layout::batch_length_channels};
};
struct one_state_bare {
  static constexpr char const* name = "one_state_bare";
  static constexpr ema_shape shape{.states = 1, .skip = false};
};

// Every option runs on every backend, and every element type in both layouts.
#if defined(__CUDACC__)
using all_subjects =
    ::testing::Types<ema_subject<cuda_backend, float, plain>, ema_subject<cuda_backend, double, bidirectional>,
                     ema_subject<cuda_backend, bf16, bidirectional_bare_last>,
                     ema_subject<cuda_backend, fp16, three_states_last>>;
using few_subjects = ::testing::Types<ema_subject<cuda_backend, double, bidirectional>,
                                      ema_subject<cuda_backend, fp16, three_states_last>>;
using subjects = all_or_few<all_subjects, few_subjects>;
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, ema_test, subjects, subject_name);
#else
#if !defined(__SANITIZE_THREAD__)
using few_cpu_subjects =
    ::testing::Types<ema_subject<cpu_backend, float, three_states_last>, ema_subject<cpu_backend, bf16, bidirectional>>;
using cpu_subjects = all_or_few<
    ::testing::Types<ema_subject<cpu_backend, float, plain>, ema_subject<cpu_backend, float, three_states_last>,
                     ema_subject<cpu_backend, double, bidirectional>,
                     ema_subject<cpu_backend, float, bidirectional_bare_last>,
                     ema_subject<cpu_backend, double, one_state_bare>, ema_subject<cpu_backend, bf16, plain>,
                     ema_subject<cpu_backend, fp16, three_states_last>, ema_subject<cpu_backend, bf16, bidirectional>>,
    few_cpu_subjects>;
INSTANTIATE_TYPED_TEST_SUITE_P(cpu, ema_test, cpu_subjects, subject_name);
#endif
// 32 threads, so that short sequences have several tiles, and as many as the policy says.
using fiber_subjects = all_or_few<
    ::testing::Types<
        ema_subject<fiber_backend<32>, float, plain>, ema_subject<fiber_backend<32>, float, three_states_last>,
        ema_subject<fiber_backend<32>, double, bidirectional>,
        ema_subject<fiber_backend<7>, bf16, bidirectional_bare_last>,
        ema_subject<fiber_backend<>, float, three_states_last>, ema_subject<fiber_backend<>, fp16, one_state_bare>>,
    ::testing::Types<ema_subject<fiber_backend<7>, bf16, bidirectional_bare_last>,
                     ema_subject<fiber_backend<>, float, three_states_last>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, ema_test, fiber_subjects, subject_name);
#endif

}  // namespace
}  // namespace tcnca::testing
