// The default kernels against the generic ones, at random: stacks, extents, strides, states, cuts, threads, workspaces.
// TCNCA_TEST_SEED and TCNCA_TEST_COUNT choose the seeds; a failure prints its seed.
#include "vector_cases.hpp"
#include "vector_suite.hpp"

namespace tcnca::testing {
namespace {

template <class T>
struct stack_pair {
  char const* name;
  compiled_stack<T> tuned, generic;
};
template <class T, conv_stack_shape Shape>
stack_pair<T> forward_pair(char const* name) {
  return {name, forward_of<T, Shape>(), forward_of<T, Shape, generic_tuning<T, Shape>>()};
}
template <class T, conv_stack_shape Shape>
stack_pair<T> backward_pair(char const* name) {
  return {name, both_of<T, Shape>(), both_of<T, Shape, generic_tuning<T, Shape>>()};
}

/// Runs `body(seed)` for each seed.
template <class Body>
void for_each_seed(int count, Body body) {
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1),
                      end = first + environment("TCNCA_TEST_COUNT", std::uint64_t(count));
  for (std::uint64_t seed = first; seed < end && !::testing::Test::HasFailure(); seed++) {
    SCOPED_TRACE(::testing::Message() << "TCNCA_TEST_SEED=" << seed);
    body(seed);
  }
}

/// A call with a workspace between what one worker and what all workers need.
template <class Query, class Call>
void call_with_some_workspace(random_bits& r, cpu executor, Query query, Call call) {
  size_t const least = query(cpu{1}), all = query(executor);
  ASSERT_LE(least, all);
  size_t const bytes = between(r, 0, 1) ? all : least + size_t(between(r, 0, 64)) * (all - least) / 64;
  run_with_workspace<cpu_backend>(bytes, [&](workspace w) { return call(executor, w); });
}

/// Computes y and state_out, the sequence in one part or several.
template <class T>
void run_forward_in_parts(compiled_stack<T> const& calls, vector_problem<T>& problem, random_bits& r) {
  auto const args = problem.forward();
  bool const can_cut = problem.e.state_out;
  auto carried = problem.template new_sequence<accumulate_t<T>>(calls.shape.receptive_field() - 1);
  bool has_state = false;
  for (index_t done = 0; done < problem.e.length || done == 0;) {
    index_t const rest = problem.e.length - done;
    bool const is_last = !can_cut || rest == 0 || between(r, 0, 3) == 0;
    index_t const n = is_last ? rest : between(r, 1, int(rest));
    auto part = args;
    part.position += done;
    part.x.extent[2] = part.y.extent[2] = n;
    part.x.data += done * part.x.stride[2], part.y.data += done * part.y.stride[2];
    if (has_state) part.state_in = carried.view();
    bool const ends = done + n == problem.e.length;
    auto next = problem.template new_sequence<accumulate_t<T>>(calls.shape.receptive_field() - 1);
    if (can_cut && !ends) part.state_out = has_state && between(r, 0, 1) ? carried.view() : next.view();
    call_with_some_workspace(
        r, cpu{between(r, 1, 8)}, [&](cpu e) { return calls.forward_workspace(e, part); },
        [&](cpu e, workspace w) { return calls.forward(e, part, w); });
    if (ends) return;
    if (part.state_out.data == next.view().data) std::swap(carried, next);
    has_state = true, done += n;
  }
}

template <class T>
void compare_forward(stack_pair<T> const& pair, std::uint64_t seed) {
  random_bits r{seed};
  extents const e = random_vector_extents(pair.tuned.shape, r);
  SCOPED_TRACE(::testing::Message() << pair.name << ", " << e);
  vector_problem<T> left(pair.tuned, e, seed), right(pair.generic, e, seed);
  run_forward_in_parts(pair.tuned, left, r);
  right.run_forward(1);
  EXPECT_TRUE(same_bits(left.y, right.y)) << "y";
  EXPECT_TRUE(same_bits(left.state_out, right.state_out)) << "state_out";
  EXPECT_TRUE(left.y.intact() && left.state_out.intact());
}

template <class T>
void compare_backward(stack_pair<T> const& pair, std::uint64_t seed) {
  random_bits r{seed};
  extents const e = random_vector_extents(pair.tuned.shape, r);
  SCOPED_TRACE(::testing::Message() << pair.name << ", " << e);
  vector_problem<T> left(pair.tuned, e, seed, true), right(pair.generic, e, seed, true);
  auto const args = left.backward();
  call_with_some_workspace(
      r, cpu{between(r, 1, 8)}, [&](cpu c) { return pair.tuned.backward_workspace(c, args); },
      [&](cpu c, workspace w) { return pair.tuned.backward(c, args, w); });
  right.run_backward(1);
  EXPECT_TRUE(same_bits(left.grad_x, right.grad_x)) << "grad_x";
  EXPECT_TRUE(same_bits(left.grad_state_in, right.grad_state_in)) << "grad_state_in";
  // The order of these sums may differ.
  left.expect_backward_within_bounds(false), right.expect_backward_within_bounds(false);
}

using namespace shapes;
std::vector<stack_pair<float>> const both_passes {
#if !defined(TCNCA_TEST_FEW)
  backward_pair<float, k4_f4>("k4_f4"), backward_pair<float, k3_f3_block>("k3_f3_block"),
      backward_pair<float, symmetric_f7>("symmetric_f7"),
#endif
      backward_pair<float, last(list_any)>("list_any_last")
};
std::vector<stack_pair<bf16>> const bf16_forward {
#if !defined(TCNCA_TEST_FEW)
  forward_pair<bf16, last(list_129)>("bf16_list_129_last"),
      forward_pair<bf16, bidirectional_skip>("bf16_bidirectional_skip"),
#endif
      forward_pair<bf16, k17_f16_bias>("bf16_k17_f16_bias")
};

template <class T>
auto const& one_of(std::vector<T> const& all, random_bits& r) {
  return all[std::size_t(r.below(int(all.size())))];
}

TEST(conv_stack_vector_fuzz, forward) {
  for_each_seed(400, [&](std::uint64_t seed) {
    random_bits choice{~seed};
    if (between(choice, 0, 2) == 0) compare_forward(one_of(bf16_forward, choice), seed);
    else compare_forward(one_of(both_passes, choice), seed);
  });
}

TEST(conv_stack_vector_fuzz, backward) {
  for_each_seed(150, [&](std::uint64_t seed) {
    random_bits choice{~seed};
    compare_backward(one_of(both_passes, choice), seed);
  });
}

}  // namespace
}  // namespace tcnca::testing
