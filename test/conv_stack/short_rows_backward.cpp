// The backward kernel of short rows: grad_x has the bits of the generic kernel, gradients of parameters are within the
// bounds of the reference.
#include <tcnca/conv_stack/vector/short_rows_backward.hpp>
#include <tcnca/launch/launch.hpp>

#include "short_rows_cases.hpp"

namespace tcnca::testing {
namespace {

template <class S, int Bytes = detail::register_bytes>
using agent_of = conv_stack_short_rows_backward_agent<serial_group, typename S::T, S::shape, policy_of<S>(Bytes)>;

template <class S>
struct conv_stack_short_rows_backward : ::testing::Test {};
TYPED_TEST_SUITE_P(conv_stack_short_rows_backward);

/// Runs the kernel and the addition of its sums.
template <class Agent, class S>
void run(conv_stack_problem<S>& problem, int threads, bool streaming) {
  using A = typename S::A;
  auto const args = problem.backward();
  index_t const parts = Agent::partial_sums(args.x);
  tensor<A, 3> sums({parts, S::shape.parameters(), args.x.extent[1]}, {0, 1, 2});
  auto const params = Agent::make_params(args, sums.view(), streaming);
  run_with_workspace<typename S::backend>(workspace_for<Agent>(cpu{threads}, params).all,
                                          [&](workspace w) { return launch<Agent>(cpu{threads}, params, w); });
  EXPECT_TRUE(sums.intact()) << "written outside of the sums";
  using reduce = typename detail::tuned_conv_stack<typename S::T, S::shape, generic_tuning<typename S::T, S::shape>,
                                                   cpu>::reduce_agent;
  ASSERT_TRUE(launch<reduce>(cpu{threads}, {.sums = sums.view(),
                                            .grad_weight = args.grad_weight,
                                            .grad_bias = args.grad_bias,
                                            .grad_omega = args.grad_omega})
                  .ok());
}

template <class Agent, class S>
void expect_gradients(extents const& e, std::uint64_t seed, bool streaming = false) {
  SCOPED_TRACE(::testing::Message() << e << ", seed " << seed << ", width " << Agent::width);
  conv_stack_problem<S> problem(e, seed);
  problem.want_gradients();
  ASSERT_TRUE(Agent::can_run(problem.backward()));
  problem.run_backward(seed);
  auto const grad_x = problem.grad_x.bits();
  problem.grad_x.clear(), problem.grad_weight.clear(), problem.grad_bias.clear(), problem.grad_omega.clear();
  run<Agent>(problem, int(seed % 3), streaming);
  EXPECT_TRUE(problem.grad_x.bits() == grad_x) << "grad_x";
  problem.expect_backward();
}

TYPED_TEST_P(conv_stack_short_rows_backward, has_the_bits_of_the_generic_kernel) {
  using S = TypeParam;
  using agent = agent_of<S>;
  static_assert(agent::exists);
  for (index_t length = 1; length <= agent::longest; length += length < 4 ? 1 : 3) {
    auto const seed = std::uint64_t(length);
    random_bits r{seed};
    extents e{.batch = between(r, 1, 3), .channels = between(r, 1, 7), .length = length};
    if (between(r, 0, 1)) e.where = {between(r, 0, 9), between(r, 0, 9)};
    expect_gradients<agent, S>(e, seed);
    if (this->HasFailure()) return;
  }
}

// Several partial sums of several sequences, and channels that do not fill an item.
TYPED_TEST_P(conv_stack_short_rows_backward, adds_many_sequences) {
  using S = TypeParam;
  using agent = agent_of<S>;
  index_t const w = agent::width;
  for (index_t const length : {index_t(3), 3 * w, 5 * w - 1})
    expect_gradients<agent, S>({.batch = 130, .channels = agent::channels_per_item + 3, .length = length}, 16);
}

TYPED_TEST_P(conv_stack_short_rows_backward, streams) {
  using S = TypeParam;
  using agent = agent_of<S>;
  index_t const line = 64 / index_t(sizeof(typename S::T));
  for (index_t length = line; length <= agent::longest; length += line)
    expect_gradients<agent, S>({.batch = 2, .channels = 5, .length = length}, 16, true);
}

// Vectors shorter than those of the processor.
TYPED_TEST_P(conv_stack_short_rows_backward, has_the_same_bits_in_short_vectors) {
  using S = TypeParam;
  using agent = agent_of<S, 16>;
  for (index_t length = 1; length <= agent::longest; length += length < 4 ? 1 : 5)
    expect_gradients<agent, S>({.batch = 2, .channels = 3, .length = length}, std::uint64_t(length));
}

// Gradients of parameters are the same for any number of threads.
TYPED_TEST_P(conv_stack_short_rows_backward, repeats_bit_by_bit) {
  using S = TypeParam;
  conv_stack_problem<S> problem({.batch = 70, .channels = 35, .length = 21}, 3);
  problem.want_gradients();
  run<agent_of<S>>(problem, 1, false);
  auto const weight = problem.grad_weight.bits(), bias = problem.grad_bias.bits(), omega = problem.grad_omega.bits();
  for (int const threads : {2, 5}) {
    problem.grad_weight.clear();
    run<agent_of<S>>(problem, threads, false);
    EXPECT_TRUE(problem.grad_weight.bits() == weight && problem.grad_bias.bits() == bias &&
                problem.grad_omega.bits() == omega)
        << threads << " threads";
  }
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_short_rows_backward, has_the_bits_of_the_generic_kernel, adds_many_sequences,
                            streams, has_the_same_bits_in_short_vectors, repeats_bit_by_bit);
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_short_rows_backward, short_rows_subjects, subject_name);

}  // namespace
}  // namespace tcnca::testing
