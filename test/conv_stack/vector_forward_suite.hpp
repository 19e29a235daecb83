// The forward pass on the CPU, bit by bit against the oracle. forward_suite.hpp compares with fp64 at the edges of the
// generic kernel's tiles; here are the edges of vectors and blocks, rows shared by any number of threads, unaligned and
// broadcast arguments, workspaces of any size, infinities and NaNs.
#pragma once
#include "vector_suite.hpp"

namespace tcnca::testing {
namespace {

template <class T>
struct vector_forward_checks {
  using problem_type = vector_problem<T>;
  using A = accumulate_t<T>;
  compiled_stack<T> calls;

  bool causal() const { return calls.shape.dir == direction::causal; }

  void expect_bits(problem_type& problem, std::vector<int> const& counts) const {
    auto const right = conv_stack_oracle<T>(problem).run();
    for (int const threads : counts) {
      SCOPED_TRACE(::testing::Message() << threads << " threads");
      problem.clear_outputs();
      problem.run_forward(threads);
      problem.expect_outputs(right);
      if (::testing::Test::HasFailure()) return;
    }
  }

  /// All lengths, and the oracle itself within its bounds.
  void lengths() const {
    for (int i = 0; i < 2 * int(std::size(vector_lengths)); i++) {
      index_t const length = vector_lengths[std::size_t(i) / 2];
      extents const e = vector_extents(calls.shape, length, i);
      SCOPED_TRACE(::testing::Message() << e);
      problem_type problem(calls, e, std::uint64_t(i));
      expect_bits(problem, {1, 2 + i % 6});
      if (length <= 255) problem.expect_forward_within_bounds(false, problem.state_out);
      problem.expect_inputs_untouched();
      if (::testing::Test::HasFailure()) return;
    }
  }

  /// One long row, which the threads share, and many short ones.
  void few_and_many_rows() const {
    for (bool const state : {false, true}) {
      extents few{.batch = 1, .channels = 1, .length = 100003, .position = 77}, many{40, 17, 131};
      few.state_in = few.state_out = many.state_in = many.state_out = state && causal();
      if (state) many.batch = calls.shape.receptive_field() > long_field ? 1 : 4;
      for (extents const& e : {few, many}) {
        SCOPED_TRACE(::testing::Message() << e);
        problem_type problem(calls, e, 5);
        expect_bits(problem, thread_counts);
        if (::testing::Test::HasFailure()) return;
      }
    }
  }

  /// A sequence in parts of any length, joined by the state, in place or not.
  void parts() const {
    if (!causal()) return;
    for (std::uint64_t seed = 1; seed <= 6; seed++) {
      random_bits r{seed};
      extents const e{.batch = 2,
                      .channels = 3,
                      .length = seed == 1 ? 12000 : 700,
                      .position = index_t(seed * 1000),
                      .state_in = seed % 2 == 0,
                      .state_out = true};
      problem_type whole(calls, e, seed);
      auto const right = conv_stack_oracle<T>(whole).run();
      auto const args = whole.forward();
      auto carried = whole.template new_sequence<A>(calls.shape.receptive_field() - 1);
      carried.assign(whole.p.state_in);
      bool has_state = e.state_in;
      int count = 0;
      for (index_t done = 0; done < e.length; count++) {
        int const kind = between(r, 0, 3);
        index_t const n = std::min<index_t>(e.length - done, kind == 0   ? between(r, 0, 3)
                                                             : kind == 1 ? between(r, 0, 40)
                                                                         : between(r, 100, int(e.length / 3)));
        bool const in_place = has_state && between(r, 0, 1);
        SCOPED_TRACE(::testing::Message() << "seed " << seed << ", part " << count << ": " << n << " samples from "
                                          << done << (in_place ? ", in place" : ""));
        auto next = whole.template new_sequence<A>(calls.shape.receptive_field() - 1);
        auto part = args;
        part.position = args.position + done;
        part.x.extent[2] = part.y.extent[2] = n;
        part.x.data += done * part.x.stride[2];
        part.y.data += done * part.y.stride[2];
        part.state_in = has_state ? carried.view() : part.state_in;
        part.state_out = in_place ? carried.view() : next.view();
        problem_type::run_forward(calls, part, between(r, 1, 7));
        if (!in_place) std::swap(carried, next);
        has_state = true;
        done += n;
      }
      SCOPED_TRACE(::testing::Message() << "seed " << seed);
      EXPECT_TRUE(are_exactly(whole.y, right.y)) << "y";
      EXPECT_TRUE(are_exactly(carried, right.state_out)) << "state_out";
      EXPECT_TRUE(whole.y.intact() && carried.intact());
      if (::testing::Test::HasFailure()) return;
    }
  }

  /// Any workspace of at least what the query returns for one thread gives the same bits; a smaller one is refused.
  void workspaces() const {
    for (index_t const length : {257, 20011}) {
      extents const e{.batch = 1, .channels = 3, .length = length, .state_in = causal(), .state_out = causal()};
      problem_type problem(calls, e, 3);
      auto const right = conv_stack_oracle<T>(problem).run();
      auto const args = problem.forward();
      for (int const threads : thread_counts) {
        size_t const all = calls.forward_workspace(cpu{threads}, args), least = calls.forward_workspace(cpu{1}, args);
        ASSERT_LE(least, all);
        for (size_t const bytes : {size_t(0), least / 2, least, least + (all - least) / 2, all}) {
          SCOPED_TRACE(::testing::Message() << threads << " threads, " << bytes << " of " << least << " to " << all);
          problem.clear_outputs();
          scratch_memory const scratch(bytes);
          status const s = calls.forward(cpu{threads}, args, scratch.get());
          EXPECT_TRUE(scratch.intact()) << "written outside of the workspace";
          if (bytes >= least) {
            ASSERT_TRUE(s.ok()) << to_string(s);
            problem.expect_outputs(right);
          } else {
            ASSERT_TRUE(s == status_code::workspace_too_small) << to_string(s);
            for (unsigned char const byte : problem.y.image()) ASSERT_EQ(byte, 0xff) << "written by a refused call";
          }
          if (::testing::Test::HasFailure()) return;
        }
      }
    }
  }

  /// Inputs with strides of 0, and weights in another order.
  void strides() const {
    for (int i = 0; i < 6; i++) {
      extents const e{.batch = 3,
                      .channels = calls.shape.receptive_field() > long_field ? 3 : 19,
                      .length = 150 + 29 * i,
                      .position = 3,
                      .state_in = causal() && i == 5,
                      .where = {.padding = 3 * i % 5, .offset = i}};
      SCOPED_TRACE(::testing::Message() << "strides " << i);
      problem_type problem(calls, e, std::uint64_t(i));
      auto args = problem.forward();
      tensor<T, 3> weight;
      switch (i) {
        case 0: args.x = make_broadcast(problem.x, 0); break;
        case 1: args.x = make_broadcast(problem.x, calls.shape.order == layout::batch_channels_length ? 1 : 2); break;
        case 2: args.weight = make_broadcast(problem.weight, 0); break;
        case 3:
          args.weight = make_broadcast(problem.weight, 2);
          if (problem.bias.present()) args.bias = make_broadcast(problem.bias, 1);
          if (problem.omega.present()) args.omega = make_broadcast(problem.omega, 0);
          break;
        case 4:
          weight = reordered(problem.weight, {2, 0, 1}, {.padding = 2, .offset = 1});
          args.weight = weight.view();
          break;
        case 5:
          if (causal()) args.state_in = make_broadcast(problem.state_in, 0);
          break;
      }
      auto const right = conv_stack_oracle<T>(problem).run();
      problem_type::run_forward(calls, args, 1 + i % 3);
      problem.expect_outputs(right);
      if (::testing::Test::HasFailure()) return;
    }
  }

  /// Infinities and NaNs reach the outputs that depend on them, and no others.
  void not_finite() const {
    random_bits r{9};
    for (index_t const length : {21, 700, 9001})
      for (index_t const position : special_positions(length, r))
        for (double const value : {double(NAN), double(INFINITY), -double(INFINITY)}) {
          extents e{.batch = 1, .channels = 2, .length = length};
          e.state_in = e.state_out = causal() && calls.shape.receptive_field() <= long_field && between(r, 0, 1);
          SCOPED_TRACE(::testing::Message() << e << ": " << value << " at " << position);
          problem_type problem(calls, e, 2);
          *problem.x.at(position) = from_double<T>(value);
          auto const right = conv_stack_oracle<T>(problem).run();
          problem.run_forward(between(r, 1, 7));
          problem.expect_outputs(right);
          for (index_t t = 0; t < (causal() ? position : 0); t++)
            ASSERT_TRUE(std::isfinite(to_double(*problem.y.at(t)))) << "before the sample, at " << t;
          for (index_t t = 0; t < length; t++)
            ASSERT_TRUE(std::isfinite(to_double(*problem.y.at(length + t)))) << "in another channel, at " << t;
          if (::testing::Test::HasFailure()) return;
        }
  }

  void random() const {
    std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 30);
    for (std::uint64_t seed = first; seed < first + count; seed++) {
      random_bits r{seed};
      extents const e = random_vector_extents(calls.shape, r);
      int const threads = between(r, 1, 8);
      SCOPED_TRACE(::testing::Message() << e << ", " << threads << " threads, TCNCA_TEST_SEED=" << seed);
      problem_type problem(calls, e, seed);
      auto const right = conv_stack_oracle<T>(problem).run();
      auto args = problem.forward();
      bool const in_place = e.state_in && e.state_out && between(r, 0, 1);
      if (in_place) problem.state_out.assign(problem.p.state_in), args.state_in = args.state_out;
      problem_type::run_forward(calls, args, threads);
      problem.expect_outputs(right);
      problem.expect_inputs_untouched();
      if (::testing::Test::HasFailure()) return;
    }
  }
};

/// The checks of a stack's forward pass.
template <class T>
vector_checks forward_checks(std::string const& name, compiled_stack<T> const& calls) {
  vector_forward_checks<T> const c{calls};
  return {{name + "_lengths", [c] { c.lengths(); }}, {name + "_few_and_many_rows", [c] { c.few_and_many_rows(); }},
          {name + "_parts", [c] { c.parts(); }},     {name + "_workspaces", [c] { c.workspaces(); }},
          {name + "_strides", [c] { c.strides(); }}, {name + "_not_finite", [c] { c.not_finite(); }},
          {name + "_random", [c] { c.random(); }}};
}

struct conv_stack_vector_forward : ::testing::TestWithParam<vector_check> {};
TEST_P(conv_stack_vector_forward, bits) { GetParam().body(); }

}  // namespace
}  // namespace tcnca::testing
