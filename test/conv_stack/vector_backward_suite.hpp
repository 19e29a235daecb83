// The backward pass on the CPU: gradients of x and of the state bit by bit against the oracle, those of parameters
// within their bounds and with the same bits from run to run, for any number of threads and any workspace.
// backward_suite.hpp compares with fp64 at the edges of the generic kernel's tiles; here are the edges of vectors and
// blocks, unaligned and broadcast arguments, infinities and NaNs.
#pragma once
#include "vector_suite.hpp"

namespace tcnca::testing {
namespace {

template <class T>
struct vector_backward_checks {
  using problem_type = vector_problem<T>;
  using A = accumulate_t<T>;
  compiled_stack<T> calls;

  bool causal() const { return calls.shape.dir == direction::causal; }

  /// Runs with so many threads. The first run's gradients of parameters must be within their bounds, unless `bounds` is
  /// false; the others must have the same bits.
  void expect_gradients(problem_type& problem, std::vector<int> const& counts, bool bounds) const {
    auto const right = conv_stack_oracle<T>(problem).run();
    std::vector<unsigned char> parameters;
    for (int const threads : counts) {
      SCOPED_TRACE(::testing::Message() << threads << " threads");
      problem.clear_gradients();
      problem.run_backward(threads);
      problem.expect_input_gradients(right);
      if (parameters.empty()) {
        parameters = problem.parameter_gradients();
        if (bounds) problem.expect_backward_within_bounds(false);
      }
      EXPECT_TRUE(problem.parameter_gradients() == parameters) << "gradients of parameters depend on the threads";
      if (::testing::Test::HasFailure()) return;
    }
  }

  void lengths() const {
    for (int i = 0; i < 2 * int(std::size(vector_lengths)); i++) {
      index_t const length = vector_lengths[std::size_t(i) / 2];
      extents const e = vector_extents(calls.shape, length, i);
      SCOPED_TRACE(::testing::Message() << e);
      problem_type problem(calls, e, std::uint64_t(i), true);
      expect_gradients(problem, {1, 1, 2 + i % 6}, i % 2 == 0 || length <= 1000);
      if (::testing::Test::HasFailure()) return;
    }
  }

  /// One long row and many short ones.
  void few_and_many_rows() const {
    for (bool const state : {false, true}) {
      extents few{.batch = 1, .channels = 1, .length = 30011, .position = 77}, many{40, 17, 131};
      few.state_in = few.state_out = many.state_in = many.state_out = state && causal();
      if (state) many.batch = calls.shape.receptive_field() > long_field ? 1 : 4;
      for (extents const& e : {few, many}) {
        SCOPED_TRACE(::testing::Message() << e);
        problem_type problem(calls, e, 5, true);
        expect_gradients(problem, thread_counts, !state);
        if (::testing::Test::HasFailure()) return;
      }
    }
  }

  /// Any workspace of at least what the query returns for one thread gives the same bits; a smaller one is refused.
  void workspaces() const {
    for (index_t const length : {257, 9001}) {
      extents const e{.batch = 2, .channels = 5, .length = length, .state_in = causal(), .state_out = causal()};
      problem_type problem(calls, e, 3, true);
      auto const right = conv_stack_oracle<T>(problem).run();
      problem.run_backward(1);
      auto const parameters = problem.parameter_gradients();
      auto const args = problem.backward();
      for (int const threads : thread_counts) {
        size_t const all = calls.backward_workspace(cpu{threads}, args), least = calls.backward_workspace(cpu{1}, args);
        ASSERT_LE(least, all);
        for (size_t const bytes : {size_t(0), least / 2, least, least + (all - least) / 2, all}) {
          SCOPED_TRACE(::testing::Message() << threads << " threads, " << bytes << " of " << least << " to " << all);
          problem.clear_gradients();
          scratch_memory const scratch(bytes);
          status const s = calls.backward(cpu{threads}, args, scratch.get());
          EXPECT_TRUE(scratch.intact()) << "written outside of the workspace";
          if (bytes >= least) {
            ASSERT_TRUE(s.ok()) << to_string(s);
            problem.expect_input_gradients(right);
            EXPECT_TRUE(problem.parameter_gradients() == parameters);
          } else {
            ASSERT_TRUE(s == status_code::workspace_too_small) << to_string(s);
            for (unsigned char const byte : problem.grad_x.image()) ASSERT_EQ(byte, 0xff) << "written";
          }
          if (::testing::Test::HasFailure()) return;
        }
      }
    }
  }

  /// Inputs with strides of 0, and weights and their gradients in other orders. Gradients of parameters have the bits
  /// of a call with plain strides.
  void strides() const {
    for (int i = 0; i < 6; i++) {
      extents const e{.batch = 3,
                      .channels = calls.shape.receptive_field() > long_field ? 3 : 19,
                      .length = 150 + 29 * i,
                      .position = 3,
                      .state_in = causal() && i == 5,
                      .state_out = causal() && i == 5,
                      .where = {.padding = 3 * i % 5, .offset = i}};
      SCOPED_TRACE(::testing::Message() << "strides " << i);
      problem_type problem(calls, e, std::uint64_t(i), true);
      auto args = problem.backward();
      tensor<T, 3> weight;
      tensor<A, 3> grad_weight;
      switch (i) {
        case 0: args.x = make_broadcast(problem.x, 0); break;
        case 1: args.grad_y = make_broadcast(problem.grad_y, 0); break;
        case 2: args.weight = make_broadcast(problem.weight, 0); break;
        case 3:
          args.weight = make_broadcast(problem.weight, 2);
          if (problem.bias.present()) args.bias = make_broadcast(problem.bias, 1);
          if (problem.omega.present()) args.omega = make_broadcast(problem.omega, 0);
          break;
        case 4:
          weight = reordered(problem.weight, {2, 0, 1}, {.padding = 2, .offset = 1});
          grad_weight = reordered(problem.grad_weight, {1, 2, 0}, {.padding = 3, .offset = 5});
          args.weight = weight.view(), args.grad_weight = grad_weight.view();
          break;
        case 5:
          if (!causal()) return;
          args.state_in = make_broadcast(problem.state_in, 0);
          args.grad_state_out = make_broadcast(problem.grad_state_out, 0);
          break;
      }
      auto const right = conv_stack_oracle<T>(problem).run();
      problem_type::run_backward(calls, args, 1 + i % 3);
      problem.expect_input_gradients(right);
      if (i == 4) problem.grad_weight.assign(grad_weight.values());
      auto const parameters = problem.parameter_gradients();
      problem.clear_gradients();
      problem.run_backward(1);
      EXPECT_TRUE(problem.parameter_gradients() == parameters) << "gradients of parameters depend on strides";
      if (::testing::Test::HasFailure()) return;
    }
  }

  /// Infinities and NaNs in x or grad_y reach the gradients that depend on them, and no others.
  void not_finite() const {
    random_bits r{9};
    for (index_t const length : {21, 700})
      for (index_t const position : special_positions(length, r))
        for (double const value : {double(NAN), double(INFINITY), -double(INFINITY)}) {
          // Where a ReLU is closed, its gradient is 0, whatever it is multiplied with: kernels may select.
          bool const in_x = calls.shape.act == activation::relu || between(r, 0, 1);
          extents e{.batch = 1, .channels = 2, .length = length};
          e.state_in = e.state_out = causal() && calls.shape.receptive_field() <= long_field && between(r, 0, 1);
          SCOPED_TRACE(::testing::Message()
                       << e << ": " << value << " in " << (in_x ? "x" : "grad_y") << " at " << position);
          problem_type problem(calls, e, 2, true);
          *(in_x ? problem.x : problem.grad_y).at(position) = from_double<T>(value);
          auto const right = conv_stack_oracle<T>(problem).run();
          problem.run_backward(between(r, 1, 7));
          problem.expect_input_gradients(right);
          for (index_t t = 0; t < length; t++)
            ASSERT_TRUE(std::isfinite(to_double(*problem.grad_x.at(length + t)))) << "in another channel, at " << t;
          bool some = false;
          for (index_t i = 0; i < problem.grad_weight.count(); i++) {
            bool const finite = std::isfinite(to_double(*problem.grad_weight.at(i)));
            if (i % 2 == 1) { ASSERT_TRUE(finite) << "grad_weight of another channel, element " << i; }
            some = some || !finite;
          }
          EXPECT_TRUE(some) << "no gradient of a weight depends on it";
          if (::testing::Test::HasFailure()) return;
        }
  }

  /// Every gradient is optional: of short rows and of long ones.
  void absent() const {
    for (index_t const length : {21, 700}) {
      SCOPED_TRACE(::testing::Message() << "length " << length);
      problem_type problem(
          calls, {.batch = 2, .channels = 3, .length = length, .state_in = causal() && length > 21, .state_out = false},
          6, true);
      expect_optional_gradients(problem, problem.backward(),
                                [&](auto const& args) { problem_type::run_backward(calls, args, 2); });
    }
  }

  void random() const {
    std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 20);
    for (std::uint64_t seed = first; seed < first + count; seed++) {
      random_bits r{seed};
      extents const e = random_vector_extents(calls.shape, r);
      int const threads = between(r, 1, 8);
      SCOPED_TRACE(::testing::Message() << e << ", " << threads << " threads, TCNCA_TEST_SEED=" << seed);
      problem_type problem(calls, e, seed, true);
      if (e.state_in && between(r, 0, 3) == 0) problem.grad_state_in = {};
      expect_gradients(problem, {threads}, true);
      if (::testing::Test::HasFailure()) return;
    }
  }
};

/// The checks of a stack's backward pass.
template <class T>
vector_checks backward_checks(std::string const& name, compiled_stack<T> const& calls) {
  vector_backward_checks<T> const c{calls};
  return {
      {name + "_lengths", [c] { c.lengths(); }},       {name + "_few_and_many_rows", [c] { c.few_and_many_rows(); }},
      {name + "_workspaces", [c] { c.workspaces(); }}, {name + "_strides", [c] { c.strides(); }},
      {name + "_not_finite", [c] { c.not_finite(); }}, {name + "_absent", [c] { c.absent(); }},
      {name + "_random", [c] { c.random(); }}};
}

struct conv_stack_vector_backward : ::testing::TestWithParam<vector_check> {};
TEST_P(conv_stack_vector_backward, bits) { GetParam().body(); }

}  // namespace
}  // namespace tcnca::testing
