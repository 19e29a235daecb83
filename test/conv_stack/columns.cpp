// Passes along columns: against the reference, bit by bit against sums in the documented order, in place, with states
// cut anywhere, and at lengths around one row and one block of rows.
#include <type_traits>

#include <tcnca/conv_stack/column/backward.hpp>
#include <tcnca/conv_stack/column/forward.hpp>
#include <tcnca/conv_stack/column/tensor_forward.hpp>
#include <tcnca/launch/launch.hpp>

#include "problem.hpp"

namespace tcnca::testing {
namespace {

/// A pass: its element type, shape and layers, and the threads of a group on a GPU.
template <class Backend, class Element, class Case>
struct column_subject {
  using backend = Backend;
  using T = Element;
  using A = accumulate_t<T>;
  using executor = typename Backend::executor;
  using group = typename executor_traits<executor>::template group<64>;
  static constexpr conv_stack_shape shape = Case::shape;
  static constexpr layer_range layers = Case::layers;
  static constexpr index_t d = shape.dilation(layers.first);
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};
template <class T, class Case>
struct column_case {
  template <class Backend>
  using on = column_subject<Backend, T, Case>;
};

struct three_levels {
  static constexpr char const* name = "three_levels";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 4, .dilation_base = 4, .act = activation::relu, .bias = true};
  static constexpr layer_range layers{1, 4};
};
struct three_levels_last {
  static constexpr char const* name = "three_levels_last";
  static constexpr conv_stack_shape shape{.taps = 4,
                                          .depth = 4,
                                          .dilation_base = 4,
                                          .act = activation::relu,
                                          .residuals = residual::level,
                                          .order = layout::batch_length_channels};
  static constexpr layer_range layers{1, 4};
};
struct two_levels {  // of a stack with a list of dilations
  static constexpr char const* name = "two_levels";
  static constexpr conv_stack_shape shape{
      .taps = 8, .dilations = {2, 9, 72}, .act = activation::gelu_tanh, .residuals = residual::level, .bias = true};
  static constexpr layer_range layers{1, 3};
};
template <int Taps, activation Act = activation::silu, layout Order = layout::batch_channels_length>
struct one_level {
  static constexpr char const* name = Order == layout::batch_channels_length ? "one_level" : "one_level_last";
  static constexpr conv_stack_shape shape{.taps = Taps, .dilations = {3, 70}, .act = Act, .bias = true, .order = Order};
  static constexpr layer_range layers{1, 2};
};
struct odd_level {  // rows are never aligned
  static constexpr char const* name = "odd_level";
  static constexpr conv_stack_shape shape{.taps = 51, .dilations = {3, 51}, .act = activation::relu, .bias = true};
  static constexpr layer_range layers{1, 2};
};
struct linear_level {  // without an activation and a bias
  static constexpr char const* name = "linear_level";
  static constexpr conv_stack_shape shape{.taps = 3, .depth = 3, .dilation_base = 8, .residuals = residual::level};
  static constexpr layer_range layers{2, 3};
};

static_assert(has_column_forward_plan<float, three_levels::shape, three_levels::layers>);
static_assert(!has_column_forward_plan<float, three_levels::shape, layer_range{0, 5}>, "more layers than there are");
static_assert(!has_column_forward_plan<float, two_levels::shape, layer_range{0, 2}>, "9 is no multiple of 2");
static_assert(has_column_backward_plan<float, three_levels::shape, layer_range{2, 3}> &&
              !has_column_backward_plan<float, three_levels::shape, layer_range{2, 4}>);

/// The tensors of a pass, and the same numbers for the reference, which sees a stack of these layers alone.
template <class S>
struct column_problem {
  using T = typename S::T;
  using A = typename S::A;
  static constexpr conv_stack_shape shape = S::shape;
  static constexpr layer_range layers = S::layers;

  extents e;
  reference::stack stack = describe(shape);
  reference::problem p;
  tensor<T, 3> x, weight, y, grad_y, grad_x;
  tensor<T, 2> bias;
  tensor<A, 3> state_in, state_out;

  column_problem(extents const& size, std::uint64_t seed) : e(size) {
    random_bits r{seed};
    stack.dilation = {stack.dilation.begin() + layers.first, stack.dilation.begin() + layers.last};
    p.batch = e.batch, p.channels = e.channels, p.length = e.length, p.position = e.position;
    x = sequence<T>(e.length), y = sequence<T>(e.length), grad_y = sequence<T>(e.length),
    grad_x = sequence<T>(e.length);
    weight = tensor<T, 3>({shape.layers(), shape.taps, e.channels}, {0, 1, 2}, e.where);
    bias = tensor<T, 2>({shape.layers(), e.channels}, {0, 1}, e.where);
    p.x = fill(x, r, 1), p.grad_y = fill(grad_y, r, 1);
    p.weight = part(fill(weight, r, std::sqrt(3.0 / shape.taps)), shape.layers(), layers.first, layers.last);
    auto const biases = fill(bias, r, 0.5);
    if (shape.bias) p.bias = part(biases, shape.layers(), layers.first, layers.last);
    if (e.state_in) state_in = sequence<A>(state_length), p.state_in = state_part(fill(state_in, r, 1));
    if (e.state_out) state_out = sequence<A>(state_length);
  }

  conv_stack_pass_params<T> forward(sequence_view<T> output) const {
    return {.x = x.view(),
            .weight = weight.view(),
            .bias = shape.bias ? tensor_view<T const, 2>(bias.view()) : tensor_view<T const, 2>{},
            .state_in = state_in.view(),
            .y = output,
            .state_out = state_out.view(),
            .position = e.position,
            .segments = 1,
            .segment_length = int(e.length)};
  }
  conv_stack_backward_pass_params<T> backward(sequence_view<T> output, tensor_view<A, 3> sums) const {
    return {.x = x.view(),
            .weight = weight.view(),
            .bias = shape.bias ? tensor_view<T const, 2>(bias.view()) : tensor_view<T const, 2>{},
            .grad_y = grad_y.view(),
            .grad_x = output,
            .sums = sums,
            .segments = 1,
            .segment_length = int(e.length)};
  }
  bool intact() const {
    return x.intact() && y.intact() && grad_x.intact() && grad_y.intact() && state_in.intact() && state_out.intact();
  }

  static constexpr index_t state_length = shape.receptive_field() - 1;
  /// The layers' slots of a state.
  std::vector<double> state_part(std::vector<double> const& all) const {
    std::vector<double> v;
    for (index_t row = 0; row < e.batch * e.channels; row++)
      v.insert(v.end(), all.begin() + row * state_length + shape.history_before(layers.first),
               all.begin() + row * state_length + shape.history_before(layers.last));
    return v;
  }

 private:
  template <class E>
  tensor<E, 3> sequence(index_t length) const {
    return tensor<E, 3>::sequence(shape.order, e.batch, e.channels, length, e.where);
  }
  static std::vector<double> part(std::vector<double> const& all, int count, int first, int last) {
    auto const each = std::ptrdiff_t(all.size()) / count;
    return {all.begin() + first * each, all.begin() + last * each};
  }
};

template <class Agent, class S>
void run_pass(typename Agent::params_type const& params, std::uint64_t seed) {
  auto const executor = S::backend::make(seed);
  run_with_workspace<typename S::backend>(workspace_for<Agent>(executor, params).all,
                                          [&](workspace w) { return launch<Agent>(executor, params, w); });
}
template <class S>
using forward_agent = conv_stack_column_forward_agent<typename S::group, typename S::T, S::shape, S::layers>;
template <class S>
using backward_agent = conv_stack_column_backward_agent<typename S::group, typename S::T, S::shape, S::layers>;

/// Lengths around a row and around a block of rows; with and without vectors, padding and states.
template <class S>
std::vector<extents> column_extents(int rows) {
  index_t const d = S::d, block = d * rows;
  return {{.batch = 2, .channels = 3, .length = 1, .position = 7, .state_in = true, .state_out = true},
          {.batch = 1, .channels = 2, .length = d - 1},
          {.batch = 1, .channels = 3, .length = d + 1, .state_out = true, .where = {.padding = 1, .offset = 1}},
          {.batch = 2, .channels = 2, .length = block, .position = 123456789, .state_in = true, .state_out = true},
          {.batch = 1, .channels = 66, .length = d + 2, .where = {.padding = 2, .offset = 2}},
          {.batch = 1, .channels = 2, .length = block + d - 2, .state_in = true, .where = {.padding = 8}},
          {.batch = 1, .channels = 1, .length = 4 * block + 3 * d + 1, .state_out = true},
          {.batch = 1, .channels = 4, .length = 3 * block}};
}

template <class S>
struct conv_stack_columns : ::testing::Test {};
using forward_types =
    subjects<column_case<float, three_levels>, column_case<bf16, three_levels_last>, column_case<fp16, two_levels>,
             column_case<double, two_levels>, column_case<bf16, one_level<17>>, column_case<float, linear_level>,
             column_case<float, odd_level>>;
TYPED_TEST_SUITE(conv_stack_columns, forward_types, subject_name);

TYPED_TEST(conv_stack_columns, forward_matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  using agent = forward_agent<S>;
  use_arithmetic_of<typename S::T>();
  std::uint64_t seed = 1;
  for (extents const& e : column_extents<S>(agent::plan.rows)) {
    SCOPED_TRACE(::testing::Message() << e);
    bool const in_place = ++seed % 2 == 0;
    column_problem<S> problem(e, seed);
    run_pass<agent, S>(problem.forward(in_place ? problem.x.view() : problem.y.view()), seed);
    auto const r = reference::forward(problem.stack, problem.p);
    EXPECT_TRUE(within(in_place ? problem.x : problem.y, r.y.value, r.y.error)) << "y";
    if (e.state_out) {
      auto const state = problem.state_part(problem.state_out.values());
      for (std::size_t i = 0; i < state.size(); i++)
        ASSERT_LE(std::abs(state[i] - r.state_out.value[i]), r.state_out.error[i]) << "state_out " << i;
      auto const all = problem.state_out.values();
      ASSERT_EQ(std::count_if(all.begin(), all.end(), [](double v) { return std::isnan(v); }),
                std::ptrdiff_t(all.size() - state.size()))
          << "slots of other layers";
    }
    EXPECT_TRUE(problem.intact()) << "written outside of the results";
  }
}

// The whole sequence, and the same in two parts with the state in place: the same bits.
TYPED_TEST(conv_stack_columns, forward_is_the_same_in_parts) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  using agent = forward_agent<S>;
  index_t const length = S::d * (agent::plan.rows + 3) + 4;
  for (index_t cut : {index_t(1), S::d - 1, S::d * agent::plan.rows, length - 2}) {
    SCOPED_TRACE(::testing::Message() << "cut " << cut);
    extents const e{.batch = 1, .channels = 2, .length = length, .position = 99, .state_in = true, .state_out = true};
    column_problem<S> whole(e, 5), parts(e, 5);
    run_pass<agent, S>(whole.forward(whole.y.view()), 1);
    auto params = parts.forward(parts.y.view());
    params.state_out = parts.state_in.view();
    params.x.extent[2] = params.y.extent[2] = cut;
    run_pass<agent, S>(params, 2);
    params.position += cut;
    params.x.data = parts.x.view().at(0, 0, cut), params.y.data = parts.y.view().at(0, 0, cut);
    params.x.extent[2] = params.y.extent[2] = length - cut;
    run_pass<agent, S>(params, 3);
    EXPECT_TRUE(same_bits(whole.y, parts.y));
    EXPECT_EQ(whole.state_part(whole.state_out.values()), parts.state_part(parts.state_in.values()));
  }
}

// Sums start from the bias and add the taps in ascending order.
TYPED_TEST(conv_stack_columns, forward_adds_in_order) {
  using S = TypeParam;
  using T = typename S::T;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  constexpr conv_stack_shape shape = S::shape;
  if constexpr (shape.act == activation::none || shape.act == activation::relu) {
    extents const e{.batch = 1, .channels = 2, .length = S::d * 40 + 5};
    column_problem<S> problem(e, 9);
    run_pass<forward_agent<S>, S>(problem.forward(problem.y.view()), 1);
    tensor<T, 3> expected = tensor<T, 3>::sequence(shape.order, 1, e.channels, e.length);
    for (index_t c = 0; c < e.channels; c++) {
      std::vector<A> a(std::size_t(e.length)), next(a);
      for (index_t t = 0; t < e.length; t++) a[std::size_t(t)] = to_accumulate(*problem.x.view().at(0, c, t));
      for (int l = S::layers.first; l < S::layers.last; l++, a = next)
        for (index_t t = 0; t < e.length; t++) {
          auto sum = broadcast<1>(shape.bias ? to_accumulate(*problem.bias.view().at(l, c)) : A(0));
          for (int k = 0; k < shape.taps; k++) {
            index_t const from = t - k * shape.dilation(l);
            A const weight = to_accumulate(*problem.weight.view().at(l, k, c)),
                    in = from >= 0 ? a[std::size_t(from)] : 0;
#if defined(__CUDACC__)
            sum = broadcast<1>(std::fma(weight, in, sum.lane(0)));  // the host may be compiled without fma
#else
            sum = fma(broadcast<1>(weight), broadcast<1>(in), sum);
#endif
          }
          A const out = activate<shape.act>(sum).value.lane(0);
          next[std::size_t(t)] = shape.residuals == residual::level ? out + a[std::size_t(t)] : out;
        }
      for (index_t t = 0; t < e.length; t++) *expected.view().at(0, c, t) = from_accumulate<T>(a[std::size_t(t)]);
    }
    EXPECT_TRUE(same_bits(problem.y, expected));
  }
}

// --- Tensor cores ---

#if defined(__CUDACC__)
using warp_backends = std::tuple<cuda_backend>;
#else
using warp_backends = std::tuple<fiber_backend<>>;
#endif
struct aligned_level {
  static constexpr char const* name = "aligned_level";
  static constexpr conv_stack_shape shape{
      .taps = 17, .dilations = {3, 40}, .act = activation::silu, .residuals = residual::level};
  static constexpr layer_range layers{1, 2};
};
template <class S>
using tensor_agent = conv_stack_tensor_column_forward_agent<typename S::group, typename S::T, S::shape, S::layers>;

template <class S>
struct conv_stack_tensor_columns : ::testing::Test {};
using tensor_types = subjects_on<warp_backends, column_case<bf16, odd_level>, column_case<fp16, aligned_level>>;
TYPED_TEST_SUITE(conv_stack_tensor_columns, tensor_types, subject_name);

TYPED_TEST(conv_stack_tensor_columns, forward_matches_the_reference) {
  using S = TypeParam;
  using T = typename S::T;
  TCNCA_TEST_NEEDS(S::backend);
  use_arithmetic_of<T>();
  reference::arithmetic::u *= 4;  // tensor cores truncate
  std::uint64_t seed = 1;
  for (extents const& e : column_extents<S>(16)) {
    SCOPED_TRACE(::testing::Message() << e);
    bool const in_place = ++seed % 2 == 0;
    column_problem<S> problem(e, seed);
    if (e.state_in) {  // numbers of T, as a pass leaves them
      for (index_t i = 0; i < problem.state_in.count(); i++)
        *problem.state_in.at(i) = to_accumulate(from_accumulate<T>(*problem.state_in.at(i)));
      problem.p.state_in = problem.state_part(problem.state_in.values());
    }
    run_pass<tensor_agent<S>, S>(problem.forward(in_place ? problem.x.view() : problem.y.view()), seed);
    auto const r = reference::forward(problem.stack, problem.p);
    EXPECT_TRUE(within(in_place ? problem.x : problem.y, r.y.value, r.y.error)) << "y";
    if (e.state_out) { EXPECT_EQ(problem.state_part(problem.state_out.values()), r.state_out.value); }
    EXPECT_TRUE(problem.intact()) << "written outside of the results";
  }
}

TYPED_TEST(conv_stack_tensor_columns, forward_is_the_same_in_segments) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (index_t length : {S::d * 8 * 37, S::d * 300 + 3}) {
    extents const e{.batch = 1, .channels = 2, .length = length, .state_out = true};
    column_problem<S> whole(e, 5), parts(e, 5);
    run_pass<tensor_agent<S>, S>(whole.forward(whole.y.view()), 1);
    for (int segments : {2, 3, 5, 40}) {
      auto params = parts.forward(parts.y.view());
      params.segments = segments;
      run_pass<tensor_agent<S>, S>(params, 2);
      EXPECT_TRUE(same_bits(whole.y, parts.y)) << segments << " segments";
      EXPECT_TRUE(whole.state_part(whole.state_out.values()) == parts.state_part(parts.state_out.values()));
      parts.y.clear(), parts.state_out.clear();
    }
  }
}

// --- Backward ---

template <class S>
struct conv_stack_columns_backward : ::testing::Test {};
using backward_types =
    subjects<column_case<float, one_level<17>>, column_case<bf16, one_level<8, activation::relu>>,
             column_case<double, linear_level>, column_case<fp16, linear_level>, column_case<bf16, odd_level>,
             column_case<bf16, one_level<4, activation::silu, layout::batch_length_channels>>>;
TYPED_TEST_SUITE(conv_stack_columns_backward, backward_types, subject_name);

TYPED_TEST(conv_stack_columns_backward, matches_the_reference) {
  using S = TypeParam;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  using agent = backward_agent<S>;
  use_arithmetic_of<typename S::T>();
  std::uint64_t seed = 1;
  for (extents e : column_extents<S>(agent::plan.rows)) {
    e.state_in = e.state_out = false, e.position = 0;
    SCOPED_TRACE(::testing::Message() << e);
    bool const in_place = ++seed % 2 == 0;
    column_problem<S> problem(e, seed);
    sequence_view<typename S::T> const output = in_place ? problem.x.view() : problem.grad_x.view();
    index_t const rows = e.batch * agent::parts(problem.backward(output, {}));
    tensor<A, 3> sums({rows, agent::parameters, e.channels}, {0, 1, 2});
    run_pass<agent, S>(problem.backward(output, sums.view()), seed);
    auto const r = reference::backward(problem.stack, problem.p);
    EXPECT_TRUE(within(in_place ? problem.x : problem.grad_x, r.grad_x.value, r.grad_x.error)) << "grad_x";
    for (int k = 0; k < agent::parameters; k++)
      for (index_t c = 0; c < e.channels; c++) {
        double sum = 0;
        for (index_t i = 0; i < rows; i++) sum += double(*sums.view().at(i, k, c));
        bool const is_weight = k < S::shape.taps;
        auto const& expected = is_weight ? r.grad_weight : r.grad_bias;
        auto const i = std::size_t(is_weight ? k * e.channels + c : c);
        EXPECT_LE(std::abs(sum - expected.value[i]), expected.error[i]) << "parameter " << k << ", channel " << c;
      }
    EXPECT_TRUE(problem.intact() && sums.intact()) << "written outside of the results";
  }
}

// Parts share the columns: the workspace for the sums stays below a hundredth of x, and the groups are many.
TYPED_TEST(conv_stack_columns_backward, parts_are_small) {
  using S = TypeParam;
  using agent = backward_agent<S>;
  conv_stack_backward_pass_params<typename S::T> params{};
  for (index_t length : {1, 1000, 100000, 10000000}) {
    params.x.extent[0] = 1, params.x.extent[1] = 1, params.x.extent[2] = length;
    index_t const parts = agent::parts(params);
    EXPECT_GE(parts, 1);
    EXPECT_TRUE(parts == 1 || parts * agent::parameters * index_t(sizeof(typename S::A)) * 100 <=
                                  length * index_t(sizeof(typename S::T)));
  }
}

}  // namespace
}  // namespace tcnca::testing
