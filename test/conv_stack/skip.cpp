// The skip connection as a pass of its own, against the same sums in fp64.
#include <cmath>
#include <vector>

#include <tcnca/conv_stack/skip.hpp>
#include <tcnca/launch/launch.hpp>

#include "../support/backend.hpp"
#include "../support/compare.hpp"
#include "../support/fiber.hpp"

namespace tcnca::testing {
namespace {

template <class Backend, class Element, layout Order>
struct skip_subject {
  using backend = Backend;
  using T = Element;
  static constexpr conv_stack_shape shape{.skip = true, .order = Order};
  static std::string name() {
    return std::string(Backend::name) + "_" + name_of<T> +
           (Order == layout::batch_channels_length ? "_first" : "_last");
  }
};
template <class T, layout Order>
struct skip_case {
  template <class Backend>
  using on = skip_subject<Backend, T, Order>;
};
constexpr layout first = layout::batch_channels_length, last = layout::batch_length_channels;
using types = subjects<skip_case<float, first>, skip_case<bf16, first>, skip_case<fp16, last>, skip_case<double, last>>;

struct skip_extents {
  index_t batch, channels, length;
  placement where;
};

/// One problem: inputs, and what the passes must give for them.
template <class S>
struct skip_problem {
  using T = typename S::T;
  using A = accumulate_t<T>;
  using traits = executor_traits<typename S::backend::executor>;
  using group = typename traits::template group<traits::target.is_cpu() ? 1 : 64>;
  static constexpr conv_stack_shape shape = S::shape;

  skip_extents e;
  tensor<T, 3> x, y;
  tensor<T, 1> omega;
  std::vector<double> x_values, y_values, omega_values, before_silu;

  explicit skip_problem(skip_extents const& size) : e(size) {
    random_bits r{std::uint64_t(e.length)};
    for (auto* t : {&x, &y}) *t = tensor<T, 3>::sequence(shape.order, e.batch, e.channels, e.length, e.where);
    omega = tensor<T, 1>({e.channels}, {0}, e.where);
    x_values = fill(x, r, 2), y_values = fill(y, r, 2), omega_values = fill(omega, r, 2);
    for (std::size_t i = 0; i < x_values.size(); i++)
      before_silu.push_back(y_values[i] + omega_values[channel_of(i)] * x_values[i]);
  }
  std::size_t channel_of(std::size_t i) const { return i / std::size_t(e.length) % std::size_t(e.channels); }
  static bool vectorizable(placement where, index_t extent) {
    return traits::target.is_cpu() ||
           (where.offset * sizeof(T) % 16 == 0 && std::size_t(extent + where.padding) * sizeof(T) % 16 == 0);
  }
  bool vectorizable() const {
    return where_padding_allows() && vectorizable(e.where, shape.order == first ? e.length : e.channels);
  }
  /// A tensor's outer stride also contains the padding once.
  bool where_padding_allows() const { return traits::target.is_cpu() || e.where.padding * sizeof(T) % 16 == 0; }

  template <class Agent>
  void run(typename Agent::params_type const& params, std::uint64_t seed) {
    auto const executor = S::backend::make(seed);
    run_with_workspace<typename S::backend>(workspace_for<Agent>(executor, params).all,
                                            [&](workspace w) { return launch<Agent>(executor, params, w); });
  }
};

/// A relative error of a few roundings to T and to A.
template <class T>
double bound(double scale) {
  return scale * (std::ldexp(1.0, -format_of<T>.digits) + std::ldexp(1.0, sizeof(accumulate_t<T>) == 4 ? -19 : -46));
}

template <class S>
struct conv_stack_skip : ::testing::Test {};
TYPED_TEST_SUITE(conv_stack_skip, types, subject_name);

std::vector<skip_extents> skip_sizes() {
  return {{1, 1, 1, {}},         {2, 3, 5, {}},       {2, 64, 40, {}},
          {1, 24, 1031, {8, 0}}, {3, 2, 700, {1, 3}}, {2, 800, 3, {0, 1}}};
}

TYPED_TEST(conv_stack_skip, forward) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (skip_extents const& e : skip_sizes()) {
    SCOPED_TRACE(::testing::Message() << e.batch << " x " << e.channels << " x " << e.length);
    skip_problem<S> p(e);
    using problem = skip_problem<S>;
    conv_stack_skip_params<typename S::T> const params{
        .x = p.x.view(), .omega = p.omega.view(), .y = p.y.view(), .vectorizable = p.vectorizable()};
    p.template run<conv_stack_skip_agent<typename problem::group, typename S::T, S::shape>>(params, 1);
    std::vector<double> value, error;
    for (double const v : p.before_silu) {
      value.push_back(v / (1 + std::exp(-v)));
      error.push_back(bound<typename S::T>(8));
    }
    EXPECT_TRUE(within(p.y, value, error));
    EXPECT_TRUE(p.y.intact() && p.x.intact() && p.x.values() == p.x_values);
  }
}

}  // namespace
}  // namespace tcnca::testing
