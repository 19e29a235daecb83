// The gates, forward and backward, against the reference on every backend.
#include "problem.hpp"

namespace tcnca::testing {
namespace {

struct all_gates {
  static constexpr char const* name = "all";
  static constexpr gated_fusion_shape shape{};
};
struct simplified {
  static constexpr char const* name = "simplified";
  static constexpr gated_fusion_shape shape{.update_gate = false, .reset_gate = false, .mixer_path = false};
};
struct with_dropout {
  static constexpr char const* name = "dropout";
  static constexpr gated_fusion_shape shape{.dropout = true};
};
struct residual_dropout {
  static constexpr char const* name = "residual_dropout";
  static constexpr gated_fusion_shape shape{.update_gate = false, .dropout = true};
};

template <class S>
struct gated_fusion_test : ::testing::Test {
  static void run(gates_extents const& e, std::uint64_t seed) {
    SCOPED_TRACE(::testing::Message() << e << ", seed " << seed);
    gates_problem<S> problem(e, seed);
    problem.run_mix(seed);
    problem.expect_mix();
    problem.clear();
    problem.run_reset(seed);
    problem.expect_reset();
    problem.clear();
    problem.run_update(seed);
    problem.expect_update();
  }
};
TYPED_TEST_SUITE_P(gated_fusion_test);

TYPED_TEST_P(gated_fusion_test, matches_the_reference_at_edges) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  std::uint64_t seed = 1;
  for (index_t const columns : {1, 3, 4, 15, 16, 17, 128, 160, 1000})
    for (index_t const rows : {0, 1, 7, 33}) {
      gates_extents e{
          .batch = 1 + index_t(seed % 2), .length = rows, .columns = columns, .dropout = seed % 3 ? 0.25 : 0};
      e.where = seed % 2 ? placement{} : placement{int(seed % 5), int(seed % 3)};
      this->run(e, seed++);
      if (this->HasFailure()) return;
    }
  this->run({.batch = 0, .length = 5, .columns = 8}, seed);
  this->run({.batch = 2, .length = 5, .columns = 0}, seed);
}

TYPED_TEST_P(gated_fusion_test, matches_the_reference_at_random_extents) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  std::uint64_t const first = environment("TCNCA_TEST_SEED", 1), count = environment("TCNCA_TEST_COUNT", 12);
  for (std::uint64_t seed = first; seed < first + count; seed++) {
    random_bits random{seed};
    gates_extents e{
        .batch = between(random, 0, 3), .length = between(random, 0, 150), .columns = between(random, 0, 200)};
    e.dropout = uniform(random) / 2 + 0.5;
    if (between(random, 0, 1)) e.where = {between(random, 0, 9), between(random, 0, 9)};
    this->run(e, seed);
    if (this->HasFailure()) return;
  }
}

// More rows than the minimum of one work item.
TYPED_TEST_P(gated_fusion_test, many_rows) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  this->run({.batch = 3, .length = TypeParam::backend::is_fiber ? 3000 : 11000, .columns = 3, .dropout = 0.1}, 1);
}

TYPED_TEST_P(gated_fusion_test, repeats_bit_by_bit) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  gates_problem<S> problem({.batch = 2, .length = 77, .columns = 40, .dropout = 0.5}, 7);
  auto const run = [&](std::uint64_t seed) {
    problem.clear();
    problem.run_mix(seed), problem.run_update(seed);
    auto bits = problem.bits();
    problem.clear();
    problem.run_reset(seed);
    for (auto& b : problem.bits()) bits.push_back(b);
    return bits;
  };
  auto const first = run(0);
  for (std::uint64_t seed = 1; seed <= environment("TCNCA_TEST_ORDERS", 8); seed++)
    ASSERT_TRUE(run(seed) == first) << "seed " << seed;
}

// Results in place of inputs, as the documentation allows.
TYPED_TEST_P(gated_fusion_test, in_place) {
  using S = TypeParam;
  using op = typename S::op;
  TCNCA_TEST_NEEDS(S::backend);
  gates_extents const e{.batch = 2, .length = 9, .columns = 21, .dropout = 0.5};
  gates_problem<S> apart(e, 3), inside(e, 3);
  auto const executor = S::backend::make(1);
  apart.run_update(1);
  auto into_x = inside.update();
  into_x.y = inside.x.view();
  apart.succeed(op::update(executor, into_x));
  EXPECT_TRUE(same_bits(inside.x, apart.y));
  auto into_h = apart.update();
  into_h.y = apart.h.view();
  auto const y = apart.y.bits();
  apart.succeed(op::update(executor, into_h));
  EXPECT_TRUE(apart.h.bits() == y);
  if constexpr (S::shape.reset_gate) {
    apart.run_reset(1);
    auto const args = inside.reset();
    apart.succeed(op::reset(executor, {args.o, args.r, inside.o.view()}));
    EXPECT_TRUE(same_bits(inside.o, apart.y));
  }
}

// Adjacent slices of one matrix, as in a layer.
TYPED_TEST_P(gated_fusion_test, slices_of_one_matrix) {
  using S = TypeParam;
  using T = typename S::T;
  using op = typename S::op;
  TCNCA_TEST_NEEDS(S::backend);
  if constexpr (S::shape.update_gate && S::shape.mixer_path && !S::shape.dropout) {
    index_t const columns = 24;
    gates_problem<S> whole({.batch = 2, .length = 11, .columns = columns}, 4);
    tensor<T, 3> product({2, 11, 2 * columns}, {0, 1, 2}), gradient({2, 11, 2 * columns}, {0, 1, 2});
    auto const half = [&](tensor<T, 3> const& t, index_t first) {
      auto v = t.view();
      v.data += first, v.extent[2] = columns;
      return v;
    };
    for (index_t i = 0; i < whole.u.count(); i++) {
      index_t const at = i / columns * 2 * columns + i % columns;
      *product.at(at) = *whole.u.at(i), *product.at(at + columns) = *whole.hx.at(i);
    }
    whole.run_update(1);
    auto const y = whole.y.bits(), grad_h = whole.grad_h.bits();
    whole.clear();
    auto forward = whole.update();
    forward.u = half(product, 0), forward.hx = half(product, columns);
    whole.succeed(op::update(S::backend::make(1), forward));
    auto backward = whole.update_backward();
    backward.u = half(product, 0), backward.hx = half(product, columns), backward.grad_u = half(gradient, 0),
    backward.grad_hx = half(gradient, columns);
    whole.succeed(op::update_backward(S::backend::make(1), backward));
    EXPECT_TRUE(whole.y.bits() == y && whole.grad_h.bits() == grad_h);
    for (index_t i = 0; i < whole.h.count(); i++)
      ASSERT_EQ(to_double(*gradient.at(i / columns * 2 * columns + columns + i % columns)),
                to_double(*whole.grad_h.at(i)));
  }
}

// A saturated gate is closed or open; a value that is not finite changes only its own element.
TYPED_TEST_P(gated_fusion_test, ends_of_the_range) {
  using S = TypeParam;
  using T = typename S::T;
  TCNCA_TEST_NEEDS(S::backend);
  if constexpr (S::shape.update_gate && !S::shape.dropout) {
    gates_problem<S> problem({.batch = 1, .length = 3, .columns = 33}, 5);
    *problem.u.at(0) = from_double<T>(-INFINITY), *problem.u.at(1) = from_double<T>(INFINITY),
    *problem.h.at(2) = from_double<T>(-60000);
    *problem.x.at(3) = from_double<T>(NAN), *problem.u.at(40) = from_double<T>(-30000),
    *problem.u.at(41) = from_double<T>(30000);
    problem.run_update(1);
    auto const y = problem.y.values(), x = problem.x.values();
    EXPECT_EQ(y[0], x[0]);
    EXPECT_EQ(y[40], x[40]);
    EXPECT_TRUE(std::isnan(y[3]));
    for (std::size_t i = 0; i < y.size(); i++) EXPECT_TRUE(i == 3 || std::isfinite(y[i])) << i;
    double const candidate = y[41] - reference::gates::silu(problem.hx.values()[41] + problem.h.values()[41]);
    EXPECT_LT(std::abs(candidate), 0.05);
  }
}

TYPED_TEST_P(gated_fusion_test, absent_gradients_change_no_others) {
  using S = TypeParam;
  using op = typename S::op;
  TCNCA_TEST_NEEDS(S::backend);
  gates_problem<S> p({.batch = 2, .length = 9, .columns = 21, .dropout = 0.5}, 3);
  using mix = typename op::mix_backward_args;
  expect_each_is_optional(
      p.mix_backward(),
      [](mix const& a) {
        auto const executor = S::backend::make(1);
        run_with_workspace<typename S::backend>(op::mix_backward_workspace(executor, a),
                                                [&](workspace w) { return op::mix_backward(executor, a, w); });
      },
      std::pair{&mix::grad_z, &p.grad_z}, std::pair{&mix::grad_gq, &p.grad_gq}, std::pair{&mix::grad_mq, &p.grad_mq},
      std::pair{&mix::grad_gk, &p.grad_gk}, std::pair{&mix::grad_mk, &p.grad_mk});
  if constexpr (S::shape.reset_gate) {
    using reset = typename op::reset_backward_args;
    expect_each_is_optional(
        p.reset_backward(), [&](reset const& a) { p.succeed(op::reset_backward(S::backend::make(1), a)); },
        std::pair{&reset::grad_o, &p.grad_o}, std::pair{&reset::grad_r, &p.grad_r});
  }
  using update = typename op::update_backward_args;
  expect_each_is_optional(
      p.update_backward(), [&](update const& a) { p.succeed(op::update_backward(S::backend::make(1), a)); },
      std::pair{&update::grad_x, &p.grad_x}, std::pair{&update::grad_u, &p.grad_u},
      std::pair{&update::grad_hx, &p.grad_hx}, std::pair{&update::grad_h, &p.grad_h});
}

// Seed and offset in memory give the masks of the same numbers in the arguments.
TYPED_TEST_P(gated_fusion_test, random_state_in_memory) {
  using S = TypeParam;
  using op = typename S::op;
  TCNCA_TEST_NEEDS(S::backend);
  if constexpr (S::shape.dropout) {
    gates_problem<S> p({.batch = 2, .length = 19, .columns = 45, .dropout = 0.5}, 3);
    auto const results = [&] {
      return std::tuple{p.y.bits(), p.grad_x.bits(), p.grad_u.bits(), p.grad_hx.bits(), p.grad_h.bits()};
    };
    p.run_update(1);
    auto const expected = results();
    p.clear();
    tensor<uint64, 1> state({2}, {0}, {.padding = 3, .offset = 1});
    *state.at(0) = p.what.seed, *state.at(1) = p.what.offset;
    auto forward = p.update();
    auto backward = p.update_backward();
    forward.seed = backward.seed = 1, forward.offset = backward.offset = 2;
    forward.random_state = backward.random_state = state.view();
    p.succeed(op::update(S::backend::make(1), forward));
    p.succeed(op::update_backward(S::backend::make(1), backward));
    EXPECT_TRUE(results() == expected);
    p.expect_nothing_else();
    (*state.at(1))++;
    p.succeed(op::update(S::backend::make(1), forward));
    EXPECT_FALSE(results() == expected);
  }
}

REGISTER_TYPED_TEST_SUITE_P(gated_fusion_test, matches_the_reference_at_edges, matches_the_reference_at_random_extents,
                            many_rows, repeats_bit_by_bit, in_place, slices_of_one_matrix, ends_of_the_range,
                            absent_gradients_change_no_others, random_state_in_memory);

using types = all_or_few<
    subjects<gates_case<float, all_gates>, gates_case<float, simplified>, gates_case<float, with_dropout>,
             gates_case<double, all_gates>, gates_case<bf16, with_dropout>, gates_case<fp16, residual_dropout>>,
    subjects<gates_case<double, all_gates>, gates_case<fp16, residual_dropout>>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, gated_fusion_test, types, subject_name);

#if !defined(__CUDACC__)
// Streaming stores give the same bits.
struct streaming_tuning : default_gated_fusion_tuning<float> {
  static constexpr gated_fusion_policy pass(target t) {
    gated_fusion_policy p = default_gated_fusion_tuning<float>::pass(t);
    p.streaming_bytes = 1;
    return p;
  }
};
TEST(gated_fusion_streaming, same_bits) {
  using S = gates_subject<cpu_backend, float, all_gates>;
  using streaming = gated_fusion<float, all_gates::shape, streaming_tuning>;
  gates_problem<S> problem({.batch = 2, .length = 70, .columns = 150, .where = {10, 0}}, 1);
  problem.run_update(1);
  auto const y = problem.y.bits(), grad_u = problem.grad_u.bits();
  problem.clear();
  auto const a = problem.update();
  problem.succeed(streaming::update(cpu{}, {a.x, a.u, a.hx, a.h, a.y}));
  auto const b = problem.update_backward();
  problem.succeed(
      streaming::update_backward(cpu{}, {b.x, b.u, b.hx, b.h, b.grad_y, b.grad_x, b.grad_u, b.grad_hx, b.grad_h}));
  EXPECT_TRUE(problem.y.bits() == y && problem.grad_u.bits() == grad_u);
  problem.expect_nothing_else();
}
#endif

}  // namespace
}  // namespace tcnca::testing
