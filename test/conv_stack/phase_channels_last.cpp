// The register-phase forward kernel on channels-last sequences: a cluster of eight groups computes the same bits as the
// kernel for rows along the length, which the tests of phase_forward compare with references.
#include <tcnca/conv_stack/phase/forward.hpp>
#include <tcnca/launch/alignment.hpp>
#include <tcnca/launch/launch.hpp>

#include "support/backend.hpp"
#include "support/tensor.hpp"

namespace tcnca::testing {
namespace {

template <class Backend, class Element, class Case>
struct layout_subject {
  using backend = Backend;
  using T = Element;
  using executor = typename Backend::executor;
  static constexpr conv_stack_shape shape(layout order) {
    conv_stack_shape s = Case::shape;
    s.order = order;
    return s;
  }
  static constexpr layer_range layers = Case::layers;
  template <layout Order>
  using agent =
      conv_stack_phase_forward_agent<typename executor_traits<executor>::template group<
                                         phase_forward_plan<T, shape(layout::batch_channels_length), layers>.threads>,
                                     T, shape(Order), layers>;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};
template <class T, class Case>
struct layout_case {
  template <class Backend>
  using on = layout_subject<Backend, T, Case>;
};
struct deep {
  static constexpr char const* name = "deep";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 6, .dilation_base = 4, .act = activation::silu, .bias = true};
  static constexpr layer_range layers{0, 6};
};
struct residuals {
  static constexpr char const* name = "residuals";
  static constexpr conv_stack_shape shape{
      .taps = 3, .dilations = {1, 2, 9, 40}, .act = activation::relu, .residuals = residual::level};
  static constexpr layer_range layers{1, 4};
};
struct one_phase {
  static constexpr char const* name = "one_phase";
  static constexpr conv_stack_shape shape{.taps = 5, .depth = 1, .bias = true};
  static constexpr layer_range layers{0, 1};
};

struct layout_extents {
  index_t batch = 1, channels = 8, length = 1;
  int segments = 1;
  bool states = false;
  placement where = {};
};

template <class S>
struct conv_stack_phase_layouts : ::testing::Test {
  using T = typename S::T;
  using A = accumulate_t<T>;
  using executor = typename S::executor;
  static constexpr layout first = layout::batch_channels_length, last = layout::batch_length_channels;

  void SetUp() override {
    TCNCA_TEST_NEEDS(S::backend);
    using agent = typename S::template agent<last>;
    if (!executor_traits<executor>::template supports<agent, typename agent::params_type>(executor{}))
      GTEST_SKIP() << "compiled for a device without clusters";
  }

  struct output {
    tensor<T, 3> y;
    tensor<A, 3> state;
  };
  template <layout Order>
  static output run(layout_extents const& e, std::uint64_t seed) {
    using agent = typename S::template agent<Order>;
    constexpr conv_stack_shape shape = S::shape(Order);
    random_bits r{seed};
    auto x = tensor<T, 3>::sequence(Order, e.batch, e.channels, e.length, e.where);
    tensor<T, 3> weight({shape.layers(), shape.taps, e.channels}, {0, 1, 2});
    tensor<T, 2> bias({shape.layers(), e.channels}, {0, 1});
    index_t const history = shape.history_before(shape.layers());
    auto state_in = tensor<A, 3>::sequence(first, e.batch, e.channels, history);
    fill(x, r, 1), fill(weight, r, 1), fill(bias, r, 1), fill(state_in, r, 1);
    output out{tensor<T, 3>::sequence(Order, e.batch, e.channels, e.length, e.where),
               tensor<A, 3>::sequence(first, e.batch, e.channels, history)};
    typename agent::params_type p{};
    p.x = x.view(), p.y = out.y.view(), p.weight = weight.view();
    if (shape.bias) p.bias = bias.view();
    if (e.states) p.state_in = state_in.view(), p.state_out = out.state.view(), p.position = 12345;
    p.segment_length = int(round_up(divide_up(e.length, index_t(e.segments)), index_t(agent::segment_grain)));
    p.segments = int(divide_up(e.length, index_t(p.segment_length)));
    p.x_vectorizable = is_vectorizable<executor>(p.x, Order, index_t(16 / sizeof(T)));
    p.y_vectorizable = is_vectorizable<executor>(p.y, Order, index_t(16 / sizeof(T)));
    status const s = tcnca::launch<agent>(S::backend::make(seed), p);
    EXPECT_TRUE(s.ok()) << to_string(s);
    S::backend::finish();
    EXPECT_TRUE(out.y.intact() && out.state.intact());
    return out;
  }
};
TYPED_TEST_SUITE_P(conv_stack_phase_layouts);

TYPED_TEST_P(conv_stack_phase_layouts, same_bits) {
  using suite = conv_stack_phase_layouts<TypeParam>;
  std::uint64_t seed = 1;
  for (layout_extents const& e :
       {layout_extents{1, 8, 5000, 1, false, {}}, layout_extents{2, 16, 777, 1, true, {}},
        layout_extents{1, 11, 4097, 1, true, {1, 3}}, layout_extents{1, 24, 1, 1, true, {8, 8}},
        layout_extents{1, 8, 13000, 3, true, {8, 0}}, layout_extents{1, 9, 8192, 2, false, {7, 0}}}) {
    SCOPED_TRACE(::testing::Message() << e.batch << " x " << e.channels << " x " << e.length << ", segments "
                                      << e.segments);
    auto const expected = suite::template run<suite::first>(e, seed), got = suite::template run<suite::last>(e, seed);
    ASSERT_TRUE(got.y.bits() == expected.y.bits());
    ASSERT_TRUE(got.state.bits() == expected.state.bits());
    seed++;
  }
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_phase_layouts, same_bits);

using types = subjects_on<fiber_or_cuda, layout_case<float, deep>, layout_case<bf16, deep>,
                          layout_case<float, residuals>, layout_case<double, one_phase>>;
INSTANTIATE_TYPED_TEST_SUITE_P(on, conv_stack_phase_layouts, types, subject_name);

}  // namespace
}  // namespace tcnca::testing
