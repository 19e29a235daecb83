// The register-phase forward kernel: its plans, and the agent against fp64, against the generic kernel bit by bit, over
// segments, and over calls that pass a state on.
#include <tcnca/conv_stack/phase/forward.hpp>

#include "conv_stack/problem.hpp"

namespace tcnca::testing {
namespace {

constexpr conv_stack_shape powers(int taps, int base, int depth, activation act = activation::none, bool bias = false,
                                  residual residuals = residual::none) {
  return {.taps = taps, .depth = depth, .dilation_base = base, .act = act, .residuals = residuals, .bias = bias};
}

// --- Plans. ---

#if !defined(__CUDACC__)
template <element T, conv_stack_shape Shape, layer_range Layers>
constexpr bool is_consistent() {
  constexpr conv_stack_phase_plan plan = phase_forward_plan<T, Shape, Layers>;
  if (plan.count == 0) return false;
  int next = Layers.first;
  for (int i = 0; i < plan.count; i++) {
    conv_stack_phase const& p = plan.phase[i];
    if (p.first != next || p.last < p.first || (i > 0 && p.last == p.first)) return false;
    next = p.last;
    if (p.stride * p.outputs * p.chunks < plan.tile || p.chains * plan.threads < p.chunks * min_of(p.stride, plan.tile))
      return false;
    for (int l = p.first; l < p.last; l++)
      if (Shape.dilation(l) % p.stride != 0) return false;
  }
  return next == Layers.last;
}
template <element T>
constexpr bool all_consistent() {
  return is_consistent<T, powers(4, 4, 6), layer_range{0, 6}>() &&
         is_consistent<T, powers(4, 4, 9), layer_range{0, 6}>() &&
         is_consistent<T, powers(8, 8, 4), layer_range{0, 4}>() &&
         is_consistent<T, powers(8, 8, 6), layer_range{0, 4}>() &&
         is_consistent<T, powers(17, 16, 3), layer_range{0, 3}>() &&
         is_consistent<T, powers(17, 16, 4), layer_range{0, 3}>() &&
         is_consistent<T, powers(3, 2, 11), layer_range{0, 11}>() &&
         is_consistent<T, powers(3, 3, 7), layer_range{0, 7}>() &&
         is_consistent<T, powers(2, 2, 12), layer_range{0, 12}>() &&
         is_consistent<T, powers(51, 51, 3), layer_range{0, 1}>();
}
static_assert(all_consistent<float>() && all_consistent<bf16>() && all_consistent<fp16>());
static_assert(is_consistent<float, powers(51, 51, 3), layer_range{1, 2}>());
static_assert(is_consistent<double, powers(4, 4, 6), layer_range{0, 6}>());
static_assert(!has_phase_forward_plan<float, powers(51, 51, 3), layer_range{2, 3}>);  // 130050 positions
static_assert(
    !has_phase_forward_plan<float, conv_stack_shape{.taps = 3, .dir = direction::symmetric}, layer_range{0, 1}>);
static_assert(!has_phase_forward_plan<float, conv_stack_shape{.taps = 3, .skip = true}, layer_range{0, 1}>);
// 16 warps of a multiprocessor of sm_90.
static_assert(phase_forward_plan<float, powers(4, 4, 6), layer_range{0, 6}>.size * 4 <= 56 * 1024);
static_assert(phase_forward_plan<float, powers(8, 8, 4), layer_range{0, 4}>.size * 4 <= 56 * 1024);
static_assert(phase_forward_plan<float, powers(17, 16, 3), layer_range{0, 3}>.size * 4 <= 56 * 1024);

#endif

// --- The agent. ---

struct k4 {
  static constexpr conv_stack_shape shape = powers(4, 4, 6, activation::silu, true, residual::level);
  static constexpr layer_range layers{0, 6};
  static constexpr char const* name = "k4_f4";
};
struct k4_of_nine {  // begins after layer 0: x is converted first
  static constexpr conv_stack_shape shape = powers(4, 4, 9, activation::relu);
  static constexpr layer_range layers{1, 5};
  static constexpr char const* name = "k4_f4_layers_1_to_5";
};
struct k8 {
  static constexpr conv_stack_shape shape = powers(8, 8, 4);
  static constexpr layer_range layers{0, 4};
  static constexpr char const* name = "k8_f8";
};
struct k17 {
  static constexpr conv_stack_shape shape = powers(17, 16, 3, activation::relu, true);
  static constexpr layer_range layers{0, 3};
  static constexpr char const* name = "k17_f16";
};
struct k51 {  // taps that do not fit in registers; a dilation that is not a power of two
  static constexpr conv_stack_shape shape = powers(51, 51, 2, activation::none, true);
  static constexpr layer_range layers{0, 2};
  static constexpr char const* name = "k51_f51";
};
struct k3_powers_of_three {
  static constexpr conv_stack_shape shape = powers(3, 3, 7, activation::gelu_tanh, true);
  static constexpr layer_range layers{0, 7};
  static constexpr char const* name = "k3_f3";
};
struct k2_long {  // what precedes a tile is longer than the tile
  static constexpr conv_stack_shape shape{
      .taps = 2, .dilations = {1, 2, 5000}, .act = activation::tanh, .residuals = residual::level, .bias = true};
  static constexpr layer_range layers{0, 3};
  static constexpr char const* name = "k2_long";
};

template <class Backend, class Element, class Case>
struct phase_subject {
  using backend = Backend;
  using T = Element;
  using A = accumulate_t<T>;
  static constexpr conv_stack_shape shape = Case::shape;
  static constexpr layer_range layers = Case::layers;
  static constexpr conv_stack_phase_plan plan = phase_forward_plan<T, shape, layers>;
  using group = typename executor_traits<typename Backend::executor>::template group<plan.threads>;
  using agent = conv_stack_phase_forward_agent<group, T, shape, layers>;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};
template <class T, class Case>
struct phase_case {
  template <class Backend>
  using on = phase_subject<Backend, T, Case>;
};

/// The tensors of a pass. Views are those of the whole stack; the reference has the layers of the pass.
template <class S>
struct pass_problem {
  using T = typename S::T;
  using A = typename S::A;
  static constexpr conv_stack_shape shape = S::shape;
  static constexpr index_t state_first = shape.history_before(S::layers.first),
                           state_last = shape.history_before(S::layers.last);
  extents e;
  reference::stack stack = describe(shape);
  reference::problem p;
  tensor<T, 3> x, weight, y;
  tensor<T, 2> bias;
  tensor<A, 3> state_in, state_out;

  explicit pass_problem(extents const& size, std::uint64_t seed = 1) : e(size) {
    random_bits r{seed};
    auto const dilations = stack.dilation.begin();
    stack.dilation = {dilations + S::layers.first, dilations + S::layers.last};
    x = sequence<T>(e.length), y = sequence<T>(e.length);
    weight = tensor<T, 3>({shape.layers(), shape.taps, e.channels}, {0, 1, 2}, e.where);
    p.batch = e.batch, p.channels = e.channels, p.length = e.length, p.position = e.position;
    p.x = fill(x, r, 1);
    p.weight = part(fill(weight, r, std::sqrt(3.0 / shape.taps)), shape.layers(), S::layers.first, S::layers.last);
    if (shape.bias) {
      bias = tensor<T, 2>({shape.layers(), e.channels}, {0, 1}, e.where);
      p.bias = part(fill(bias, r, 0.5), shape.layers(), S::layers.first, S::layers.last);
    }
    if (e.state_in) {
      state_in = sequence<A>(state_length());
      p.state_in = states(fill(state_in, r, 1));
    }
    if (e.state_out) state_out = sequence<A>(state_length());
  }
  static index_t state_length() { return shape.history_before(shape.layers()); }
  template <class E>
  tensor<E, 3> sequence(index_t length) const {
    return tensor<E, 3>::sequence(shape.order, e.batch, e.channels, length, e.where);
  }
  /// Entries [first, last) of `count` along the first axis.
  static std::vector<double> part(std::vector<double> const& all, index_t count, index_t first, index_t last) {
    auto const each = std::ptrdiff_t(all.size()) / count;
    return {all.begin() + first * each, all.begin() + last * each};
  }
  /// The slots of the layers of the pass.
  std::vector<double> states(std::vector<double> const& all) const {
    std::vector<double> result;
    for (index_t row = 0; row < e.batch * e.channels; row++)
      for (index_t i = state_first; i < state_last; i++) result.push_back(all[std::size_t(row * state_length() + i)]);
    return result;
  }

  typename S::agent::params_type params(int segments) const {
    int const length = int(e.length);
    int const segment = round_up(divide_up(length, segments), S::agent::segment_grain);
    return {.x = x.view(),
            .weight = weight.view(),
            .bias = bias.view(),
            .state_in = state_in.view(),
            .y = y.view(),
            .state_out = state_out.view(),
            .position = e.position,
            .segments = divide_up(length, segment),
            .segment_length = segment,
            .x_vectorizable = aligned_rows(16 / index_t(sizeof(T)), x.view()),
            .y_vectorizable = aligned_rows(16 / index_t(sizeof(T)), y.view())};
  }
  static void run(typename S::agent::params_type const& params, std::uint64_t seed = 1) {
    ASSERT_TRUE(launch<typename S::agent>(S::backend::make(seed), params).ok());
    S::backend::finish();
  }
  void run(int segments = 1, std::uint64_t seed = 1) { run(params(segments), seed); }

  void expect_correct() const {
    use_arithmetic_of<T>();
    auto const r = reference::forward(stack, p);
    EXPECT_TRUE(within(y, r.y.value, r.y.error)) << "y";
    if (e.state_out) {
      auto const got = states(state_out.values());
      std::size_t wrong = 0;
      for (std::size_t i = 0; i < got.size(); i++)
        wrong += !(std::abs(got[i] - r.state_out.value[i]) <= r.state_out.error[i]);
      EXPECT_EQ(wrong, 0u) << "state_out";
    }
    EXPECT_TRUE(y.intact() && state_out.intact() && x.intact() && state_in.intact() && weight.intact());
    EXPECT_TRUE(x.values() == p.x) << "an input was written";
  }
};

#if defined(__CUDACC__)
using phase_backends = std::tuple<cuda_backend>;
#else
using phase_backends = std::tuple<fiber_backend<>>;
#endif
using all_phase_types =
    subjects_on<phase_backends, phase_case<float, k4>, phase_case<bf16, k4>, phase_case<fp16, k4_of_nine>,
                phase_case<float, k8>, phase_case<double, k8>, phase_case<float, k17>, phase_case<float, k51>,
                phase_case<bf16, k51>, phase_case<float, k3_powers_of_three>, phase_case<float, k2_long>>;
using few_phase_types =
    subjects_on<phase_backends, phase_case<float, k4>, phase_case<bf16, k17>, phase_case<float, k2_long>>;
using phase_types = all_or_few<all_phase_types, few_phase_types>;

template <class S>
struct conv_stack_phase_forward : ::testing::Test {};
TYPED_TEST_SUITE(conv_stack_phase_forward, phase_types, subject_name);

// Lengths at the edges of tiles, rows at any address, with and without states.
TYPED_TEST(conv_stack_phase_forward, matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  int const tile = S::plan.tile;
  for (extents const& e :
       {extents{.channels = 2, .length = 1, .position = 3, .state_in = true, .state_out = true},
        extents{.batch = 2, .channels = 1, .length = tile - 1, .state_out = true, .where = {5, 1}},
        extents{.length = tile, .position = (index_t(1) << 40) + 7, .state_in = true},
        extents{.length = tile + 1, .position = 12345, .state_in = true, .state_out = true},
        extents{.channels = 3, .length = 2 * tile + 100, .position = 1, .state_in = true, .state_out = true}}) {
    SCOPED_TRACE(::testing::Message() << e);
    pass_problem<S> problem(e);
    problem.run();
    problem.expect_correct();
  }
}

// Segments of a row have the bits of the whole row, and the last one writes the state.
TYPED_TEST(conv_stack_phase_forward, does_not_depend_on_segments) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  pass_problem<S> whole(
      {.channels = 2, .length = 4 * S::plan.tile + 33, .position = 9, .state_in = true, .state_out = true});
  whole.run();
  for (int segments = 2; segments <= 5; segments++) {
    SCOPED_TRACE(segments);
    pass_problem<S> split(whole.e);
    split.run(segments, std::uint64_t(segments));
    EXPECT_TRUE(same_bits(split.y, whole.y));
    EXPECT_TRUE(same_bits(split.state_out, whole.state_out));
  }
}

// Two calls, the second one from the state of the first, have the bits of one. The state is updated in place.
TYPED_TEST(conv_stack_phase_forward, continues_from_a_state) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  index_t const length = S::plan.tile + 200;
  pass_problem<S> whole({.length = length, .position = 100, .state_in = true, .state_out = true});
  whole.run();
  for (index_t const cut : {index_t(1), index_t(77), index_t(S::plan.tile), length - 1}) {
    SCOPED_TRACE(cut);
    pass_problem<S> two(whole.e);
    auto params = two.params(1);
    params.state_out = two.state_in.view();  // in place
    for (index_t const first : {index_t(0), cut}) {
      index_t const last = first == 0 ? cut : length;
      auto call = params;
      call.x.data += first, call.y.data += first, call.x.extent[2] = call.y.extent[2] = last - first;
      call.segment_length = round_up(int(last - first), S::agent::segment_grain);
      call.position = params.position + first;
      index_t const vector = 16 / index_t(sizeof(typename S::T));
      call.x_vectorizable = aligned_rows(vector, call.x), call.y_vectorizable = aligned_rows(vector, call.y);
      two.run(call);
    }
    EXPECT_TRUE(same_bits(two.y, whole.y));
    index_t const all = two.state_length();
    for (index_t i = two.state_first; i < two.state_last; i++)
      ASSERT_EQ(*two.state_in.at(i), *whole.state_out.at(i)) << "slot " << i << " of " << all;
  }
}

#if !defined(__CUDACC__)  // the CPU code of a CUDA program may have no fused multiply-add
// fp32: the bits of the generic kernel.
template <class S, class Tuning = default_conv_stack_tuning<typename S::T, S::shape>>
struct generic_of {
  using type = conv_stack<typename S::T, S::shape, Tuning>;
};
template <class S>
struct conv_stack_phase_bits : ::testing::Test {};
using bits_types = all_or_few<
    subjects_on<phase_backends, phase_case<float, k4>, phase_case<float, k17>, phase_case<float, k3_powers_of_three>>,
    subjects_on<phase_backends, phase_case<float, k4>>>;
TYPED_TEST_SUITE(conv_stack_phase_bits, bits_types, subject_name);

TYPED_TEST(conv_stack_phase_bits, equal_the_generic_kernel) {
  using S = TypeParam;
  using op = typename generic_of<S>::type;
  static_assert(S::layers == layer_range{0, S::shape.layers()});
  pass_problem<S> problem(
      {.channels = 2, .length = S::plan.tile + 300, .position = 17, .state_in = true, .state_out = true});
  problem.run();
  tensor<float, 3> y = problem.template sequence<float>(problem.e.length),
                   state = problem.template sequence<float>(problem.state_length());
  typename op::forward_args const args{.x = problem.x.view(),
                                       .weight = problem.weight.view(),
                                       .bias = problem.bias.view(),
                                       .state_in = problem.state_in.view(),
                                       .y = y.view(),
                                       .state_out = state.view(),
                                       .position = problem.e.position};
  run_with_workspace<cpu_backend>(op::forward_workspace(cpu{1}, args),
                                  [&](workspace w) { return op::forward(cpu{1}, args, w); });
  EXPECT_TRUE(same_bits(problem.y, y));
  EXPECT_TRUE(same_bits(problem.state_out, state));
}
#endif

}  // namespace
}  // namespace tcnca::testing
