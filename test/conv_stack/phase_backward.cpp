// The register-phase backward kernel against the reference: layers of a stack, all mappings of threads to positions,
// rows around the boundaries of tiles, and segments.
#include <gtest/gtest.h>

#include <tcnca/conv_stack/phase/backward.hpp>
#include <tcnca/launch/launch.hpp>

#include "problem.hpp"

namespace tcnca::testing {
namespace {

/// The layers [First, Last) of a stack of element type T on a backend.
template <class Backend, class Element, class Case>
struct phase_subject {
  using backend = Backend;
  using T = Element;
  static constexpr conv_stack_shape shape = Case::shape;
  static constexpr layer_range layers = Case::layers;
  static_assert(has_phase_backward_plan<T, shape, layers>);
  static constexpr auto& plan = phase_backward_plan_of<T, shape, layers>;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};
template <class T, class Case>
struct phase_case {
  template <class Backend>
  using on = phase_subject<Backend, T, Case>;
};

struct row_extents {
  index_t batch = 1, channels = 1, length = 1;
  int segments = 1;
  placement where = {};
  bool in_place = false, non_finite = false;
};

template <class S>
void expect_gradients(row_extents const& e, std::uint64_t seed) {
  using T = typename S::T;
  constexpr conv_stack_shape shape = S::shape;
  constexpr layer_range layers = S::layers;
  using executor = typename S::backend::executor;
  using agent = conv_stack_phase_backward_agent<typename executor_traits<executor>::template group<S::plan.threads>, T,
                                                shape, layers>;
  SCOPED_TRACE(::testing::Message() << "length " << e.length << ", segments " << e.segments << ", padding "
                                    << e.where.padding << ", offset " << e.where.offset);
  random_bits r{seed};
  auto const new_sequence = [&] { return tensor<T, 3>::sequence(shape.order, e.batch, e.channels, e.length, e.where); };
  constexpr int taps = shape.taps, parameters = layers.count() * (taps + (shape.bias ? 1 : 0));
  tensor<T, 3> x = new_sequence(), grad_y = new_sequence(), grad_x = new_sequence();
  tensor<T, 3> weight({shape.layers(), taps, e.channels}, {0, 1, 2}, e.where);
  tensor<T, 2> bias;
  if (shape.bias) bias = tensor<T, 2>({shape.layers(), e.channels}, {0, 1}, e.where);
  tensor<float, 3> sums({e.batch * e.segments, parameters, e.channels}, {0, 1, 2}, {});
  reference::problem p;
  p.batch = e.batch, p.channels = e.channels, p.length = e.length;
  p.x = fill(x, r, 1), p.grad_y = fill(grad_y, r, 1);
  if (e.non_finite) {
    auto const set = [&](auto& t, std::vector<double>& values, index_t i, double value) {
      *t.at(i) = from_double<T>(value), values[std::size_t(i)] = value;
    };
    set(x, p.x, e.length - 1, INFINITY), set(grad_y, p.grad_y, e.length / 2, NAN);
  }
  // The reference computes a stack of these layers only.
  reference::stack stack = describe(shape);
  stack.dilation = {stack.dilation.begin() + layers.first, stack.dilation.begin() + layers.last};
  auto const part = [&](std::vector<double> const& all, index_t row) {
    return std::vector<double>(all.begin() + layers.first * row, all.begin() + layers.last * row);
  };
  p.weight = part(fill(weight, r, std::sqrt(3.0 / taps)), taps * e.channels);
  if (shape.bias) p.bias = part(fill(bias, r, 0.5), e.channels);

  auto const aligned = [&](auto const& t) {
    return e.where.padding == 0 && e.where.offset * sizeof(T) % 16 == 0 && (e.length * index_t(sizeof(T))) % 16 == 0 &&
           t.present();
  };
  index_t const grain = agent::segment_grain;
  conv_stack_backward_pass_params<T> const params{
      .x = x.view(),
      .weight = weight.view(),
      .bias = bias.view(),
      .grad_y = grad_y.view(),
      .grad_x = e.in_place ? grad_y.view() : grad_x.view(),
      .sums = sums.view(),
      .segments = e.segments,
      .segment_length = int(round_up(divide_up(e.length, index_t(e.segments)), grain)),
      .x_vectorizable = aligned(x),
      .grad_y_vectorizable = aligned(grad_y),
      .grad_x_vectorizable = aligned(grad_x)};
  ASSERT_TRUE(launch<agent>(S::backend::make(seed), params).ok());
  S::backend::finish();

  use_arithmetic_of<T>();
  auto const expected = reference::backward(stack, p);
  if (e.non_finite) {
    // Everything that the reference computes from finite numbers only.
    for (index_t i = 0; i < grad_x.count(); i++) {
      std::size_t const j = std::size_t(i);
      if (!std::isfinite(expected.grad_x.value[j])) continue;
      double const error = std::abs(to_double(*grad_x.at(i)) - expected.grad_x.value[j]);
      ASSERT_LE(error, expected.grad_x.error[j]) << "grad_x " << i;
    }
    return;
  }
  EXPECT_TRUE(within(e.in_place ? grad_y : grad_x, expected.grad_x.value, expected.grad_x.error)) << "grad_x";
  tensor<float, 3> grad_weight({layers.count(), taps, e.channels}, {0, 1, 2}, {});
  tensor<float, 2> grad_bias({layers.count(), e.channels}, {0, 1}, {});
  index_t const size = parameters * e.channels, weights = grad_weight.count();
  for (index_t i = 0; i < size; i++) {
    double sum = 0;
    for (index_t row = 0; row < e.batch * e.segments; row++) sum += double(*sums.at(row * size + i));
    *(i < weights ? grad_weight.at(i) : grad_bias.at(i - weights)) = float(sum);
  }
  EXPECT_TRUE(within(grad_weight, expected.grad_weight.value, expected.grad_weight.error)) << "grad_weight";
  if (shape.bias) { EXPECT_TRUE(within(grad_bias, expected.grad_bias.value, expected.grad_bias.error)) << "grad_bias"; }
  EXPECT_TRUE(grad_x.intact() && grad_y.intact() && sums.intact()) << "written outside of a result";
}

template <class S>
struct conv_stack_phase_backward : ::testing::Test {};
TYPED_TEST_SUITE_P(conv_stack_phase_backward);

TYPED_TEST_P(conv_stack_phase_backward, gradients) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  constexpr int tile = TypeParam::plan.tile, lag = TypeParam::plan.level[0].lag;
  auto const check = [](row_extents const& e, std::uint64_t seed) { expect_gradients<TypeParam>(e, seed); };
  check({.batch = 2, .channels = 2, .length = tile + 32}, 1);
  check({.channels = 2, .length = lag + tile / 2 + 5, .segments = 3, .where = {1, 3}}, 2);
  for (index_t const length : {1, 2, 63, tile - 1, tile}) check({.length = length, .where = {0, int(length % 2)}}, 3);
  check({.length = 2 * tile, .segments = 4}, 4);
  check({.length = lag + tile, .in_place = true}, 5);
  check({.channels = 2, .length = tile + 100, .segments = 2, .non_finite = true}, 6);
  // So long that the sums of a thread are added to the totals before the end of the row.
  if (TypeParam::shape.taps == 2) check({.length = (1024 / phase_outputs + 1) * tile}, 7);
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_phase_backward, gradients);

// Contiguous, residue and column levels.
struct powers_of_4 {
  static constexpr char const* name = "powers_of_4";
  static constexpr conv_stack_shape shape{.taps = 4, .depth = 6, .dilation_base = 4};
  static constexpr layer_range layers{0, 6};
};
// A column level with two columns per thread; buffers hold the arguments of the activations.
struct powers_of_8_silu {
  static constexpr char const* name = "powers_of_8_silu";
  static constexpr conv_stack_shape shape{
      .taps = 8, .depth = 4, .dilation_base = 8, .act = activation::silu, .bias = true};
  static constexpr layer_range layers{0, 4};
};
// The last layers of a longer stack. The derivatives come from the outputs.
struct part_tanh {
  static constexpr char const* name = "part_tanh";
  static constexpr conv_stack_shape shape{.taps = 17, .depth = 3, .dilation_base = 16, .act = activation::tanh};
  static constexpr layer_range layers{1, 3};
};
// Any dilations, in any order, without column levels.
struct list_relu_level {
  static constexpr char const* name = "list_relu_level";
  static constexpr conv_stack_shape shape{
      .taps = 2, .dilations = {64, 16, 5, 1000}, .act = activation::relu, .residuals = residual::level, .bias = true};
  static constexpr layer_range layers{0, 4};
};
// Only column levels.
struct columns_silu_level {
  static constexpr char const* name = "columns_silu_level";
  static constexpr conv_stack_shape shape{
      .taps = 3, .dilations = {256, 1024}, .act = activation::silu, .residuals = residual::level, .bias = true};
  static constexpr layer_range layers{0, 2};
};
// One level whose windows are longer than its outputs.
struct many_taps {
  static constexpr char const* name = "many_taps";
  static constexpr conv_stack_shape shape{.taps = 51, .depth = 1};
  static constexpr layer_range layers{0, 1};
};

using all = subjects_on<fiber_or_cuda, phase_case<float, powers_of_4>, phase_case<bf16, powers_of_8_silu>,
                        phase_case<fp16, part_tanh>, phase_case<float, list_relu_level>,
                        phase_case<bf16, columns_silu_level>, phase_case<float, many_taps>>;
using few = subjects_on<fiber_or_cuda, phase_case<float, powers_of_4>, phase_case<float, list_relu_level>>;
using types = all_or_few<all, few>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_phase_backward, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
