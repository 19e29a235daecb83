// Tests of the forward pass on tensor cores, on fibers and on a CUDA device: against a reference that rounds the inputs
// of each layer to T, and within derived bounds of one that does not.
#pragma once
#include <tcnca/conv_stack/tensor/forward.hpp>
#include <tcnca/launch/alignment.hpp>
#include <tcnca/launch/launch.hpp>

#include "reference/conv_stack.hpp"
#include "support/backend.hpp"
#include "support/compare.hpp"

namespace tcnca::testing {
namespace {

template <class Backend, class Element, class Case>
struct pass_subject {
  using backend = Backend;
  using T = Element;
  static constexpr conv_stack_shape shape = Case::shape;
  static constexpr layer_range layers = Case::layers;
  static constexpr tensor_plan plan = tensor_plan_of<shape, layers>;
  using group = typename executor_traits<typename Backend::executor>::template group<plan.threads()>;
  using agent = conv_stack_tensor_forward_agent<group, T, shape, layers>;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};

template <class T, class Case>
struct pass_case {
  template <class Backend>
  using on = pass_subject<Backend, T, Case>;
};

struct lines_walk_owned {
  static constexpr char const* name = "lines_walk_owned";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 6, .dilation_base = 4, .act = activation::relu, .bias = true};
  static constexpr layer_range layers{0, 6};
};
struct burst {
  static constexpr char const* name = "burst";
  static constexpr conv_stack_shape shape{.taps = 17, .depth = 4, .dilation_base = 16, .act = activation::silu};
  static constexpr layer_range layers{0, 4};
};
// Stages of four and three layers, the inputs of most in registers only.
struct residuals {
  static constexpr char const* name = "residuals";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .dilations = {1, 2, 4, 8, 256, 512},
                                          .act = activation::tanh,
                                          .residuals = residual::level,
                                          .bias = true};
  static constexpr layer_range layers{0, 6};
};
// Neither the first nor the last layers of their stack; the last stage walks.
struct inner_layers {
  static constexpr char const* name = "inner_layers";
  static constexpr conv_stack_shape shape{
      .taps = 5, .depth = 5, .dilation_base = 4, .act = activation::gelu_erf, .bias = true};
  static constexpr layer_range layers{1, 4};
};

struct pass_extents {
  index_t batch = 1, channels = 2, length = 1;
  int segments = 1;
  bool state_in = false, state_out = false;
  index_t position = 0;
  placement where = {};
  friend std::ostream& operator<<(std::ostream& out, pass_extents const& e) {
    return out << e.batch << " x " << e.channels << " x " << e.length << ", segments " << e.segments << ", state "
               << e.state_in << e.state_out << ", position " << e.position << ", padding " << e.where.padding
               << ", offset " << e.where.offset;
  }
};

template <class S>
struct pass_problem {
  using T = typename S::T;
  using agent = typename S::agent;
  using params_type = typename agent::params_type;
  using executor = typename S::backend::executor;
  static constexpr conv_stack_shape shape = S::shape;
  static constexpr layer_range layers = S::layers;
  static constexpr index_t state_length = shape.receptive_field() - 1;

  pass_extents e;
  tensor<T, 3> x, y, weight;
  tensor<T, 2> bias;
  tensor<float, 3> state_in, state_out;
  params_type params{};

  explicit pass_problem(pass_extents const& extents, std::uint64_t seed = 1) : e(extents) {
    random_bits r{seed * 1000 + std::uint64_t(e.length)};
    auto const order = shape.order;
    x = tensor<T, 3>::sequence(order, e.batch, e.channels, e.length, e.where);
    y = tensor<T, 3>::sequence(order, e.batch, e.channels, e.length, e.where);
    weight = tensor<T, 3>({shape.layers(), shape.taps, e.channels}, {0, 1, 2});
    bias = tensor<T, 2>({shape.layers(), e.channels}, {0, 1});
    auto const fill = [&](auto& t, double scale, double offset) {
      using element = std::remove_pointer_t<decltype(t.at(0))>;
      for (index_t i = 0; i < t.count(); i++)
        *t.at(i) = from_double<element>(to_double(from_double<T>(scale * uniform(r) + offset)));
    };
    fill(x, 2, 0), fill(weight, 2.4 / std::sqrt(double(shape.taps)), 0.8 / shape.taps), fill(bias, 0.3, 0.4);
    state_in = tensor<float, 3>::sequence(layout::batch_channels_length, e.batch, e.channels, state_length);
    state_out = tensor<float, 3>::sequence(layout::batch_channels_length, e.batch, e.channels, state_length);
    fill(state_in, 2, 0);
    params.x = x.view(), params.y = y.view(), params.weight = weight.view();
    if (shape.bias) params.bias = bias.view();
    if (e.state_in) params.state_in = state_in.view();
    if (e.state_out) params.state_out = state_out.view();
    params.position = e.position;
    set_segments(e.segments);
  }

  void set_segments(int segments) {
    index_t const grain = agent::segment_grain, length = params.x.extent[2];
    params.segment_length = int(round_up(divide_up(length, index_t(segments)), grain));
    params.segments = int(divide_up(length, index_t(params.segment_length)));
  }
  void run(std::uint64_t seed = 1) {
    params.x_vectorizable = is_vectorizable<executor>(params.x, shape.order, 8);
    params.y_vectorizable = is_vectorizable<executor>(params.y, shape.order, 8);
    status const s = tcnca::launch<agent>(S::backend::make(seed), params);
    ASSERT_TRUE(s.ok()) << to_string(s);
    S::backend::finish();
  }

  /// Compares y and the final state with the references.
  void expect() {
    use_arithmetic_of<T>();
    auto const act = reference_activation();
    double difference = 0, rounding = 0, power = 0;
    std::vector<double> value, bound, states = state_in.values(), state_value(states.size(), NAN), state_bound;
    state_bound.resize(states.size(), 0);
    for (index_t row = 0; row < e.batch * e.channels; row++) {
      index_t const channel = row % e.channels;
      reference::detail::series a(0, e.length);
      std::vector<double> rounded(std::size_t(e.length));
      for (index_t t = 0; t < e.length; t++)
        rounded[std::size_t(t)] = to_double(*x.at(row * e.length + t)),
        a[t] = reference::bounded(rounded[std::size_t(t)]);
      for (int l = layers.first; l < layers.last; l++) {
        index_t const history = shape.history(l), d = shape.dilation(l);
        auto const slot = [&](index_t t) {
          return std::size_t(row * state_length + shape.history_before(l) +
                             reference::detail::modulo(e.position + t, history));
        };
        auto const before = [&](index_t t) { return e.state_in && t >= -history ? states[slot(t)] : 0.0; };
        for (index_t t = e.length - history; t < e.length; t++) {
          reference::bounded const input = t >= 0 ? a[t] : reference::bounded(before(t));
          state_value[slot(t)] = input.v, state_bound[slot(t)] = input.e;
        }
        reference::detail::series next(0, e.length);
        std::vector<double> next_rounded(std::size_t(e.length));
        double const b = shape.bias ? to_double(*bias.at(l * e.channels + channel)) : 0;
        for (index_t t = 0; t < e.length; t++) {
          reference::sum<reference::bounded> total;
          double sum = b;
          total.add(reference::bounded(b), reference::bounded(1));
          for (int k = 0; k < shape.taps; k++) {
            double const w = to_double(*weight.at((l * shape.taps + k) * e.channels + channel));
            index_t const from = t - k * d;
            total.add(reference::bounded(w), from >= 0 ? a[from] : reference::bounded(before(from)));
            sum += w * (from >= 0 ? rounded[std::size_t(from)] : before(from));
          }
          reference::bounded out = reference::detail::activate(act, total.get());
          double r = reference::detail::value(act, sum);
          if (shape.residuals == residual::level) out = out + a[t], r += rounded[std::size_t(t)];
          next[t] = reference::stored(out);
          next_rounded[std::size_t(t)] = to_double(from_double<T>(r));
        }
        a = std::move(next), rounded = std::move(next_rounded);
      }
      for (index_t t = 0; t < e.length; t++) {
        double const exact = a[t].v, got = to_double(*y.at(row * e.length + t));
        value.push_back(exact), bound.push_back(a[t].e), power += exact * exact;
        difference += (got - exact) * (got - exact);
        rounding += (rounded[std::size_t(t)] - exact) * (rounded[std::size_t(t)] - exact);
      }
    }
    EXPECT_TRUE(within(y, value, bound));
    EXPECT_TRUE(y.intact());
    if (e.length > 100) { EXPECT_GT(power, 0); }
    // The error is that of the roundings between layers.
    EXPECT_LE(std::sqrt(difference), 1.05 * std::sqrt(rounding) + 1e-6 * std::sqrt(power));
    if (e.state_out) {
      EXPECT_TRUE(state_out.intact());
      for (std::size_t i = 0; i < states.size(); i++) {
        double const got = double(*state_out.at(index_t(i)));
        if (std::isnan(state_value[i])) ASSERT_TRUE(std::isnan(got)) << "slot " << i << " of another layer is written";
        else ASSERT_LE(std::abs(got - state_value[i]), state_bound[i]) << "slot " << i << " of the state";
      }
    }
  }

 private:
  static reference::activation reference_activation() {
    switch (shape.act) {
      case activation::relu: return reference::activation::relu;
      case activation::silu: return reference::activation::silu;
      case activation::gelu_erf: return reference::activation::gelu_erf;
      case activation::gelu_tanh: return reference::activation::gelu_tanh;
      case activation::tanh: return reference::activation::tanh;
      default: return reference::activation::none;
    }
  }
};

template <class S>
struct conv_stack_tensor_forward : ::testing::Test {
  void SetUp() override {
    using executor = typename S::backend::executor;
    if constexpr (clustered<typename S::agent>) {
      if (!executor_traits<executor>::template supports<typename S::agent, typename S::agent::params_type>(executor{}))
        GTEST_SKIP() << "compiled for a device without clusters";
    }
  }
  void check(pass_extents const& e, std::uint64_t seed = 1) {
    SCOPED_TRACE(e);
    pass_problem<S> problem(e, seed);
    problem.run(seed);
    problem.expect();
  }
};
TYPED_TEST_SUITE_P(conv_stack_tensor_forward);

// Lengths around the boundaries of vectors and tiles; rows with and without alignment; more rows than groups.
TYPED_TEST_P(conv_stack_tensor_forward, lengths) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  index_t const tile = TypeParam::plan.tile, few = clustered<typename TypeParam::agent> ? 8 : 2;
  int n = 0;
  for (index_t const length : {index_t(1), index_t(7), index_t(200), tile - 8, tile, tile + 1, 2 * tile + 24}) {
    this->check(
        {.batch = 1 + n % 2, .channels = few + n % 3 / 2 * 3, .length = length, .where = {n % 3 == 1 ? 8 : 0, n % 3}},
        std::uint64_t(++n));
    if (this->HasFailure()) return;
  }
  this->check({.batch = 2, .channels = TypeParam::backend::is_fiber ? 2 : 140, .length = 9}, 3);
}

// A segment computes the positions before it again.
TYPED_TEST_P(conv_stack_tensor_forward, segmented) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  index_t const tile = TypeParam::plan.tile, halo = TypeParam::agent::halo;
  for (int segments = 2; segments <= 5; segments++) {
    this->check({.channels = segments == 5 ? 2 : 1,
                 .length = segments == 5 ? halo + 2 * tile + 24 : segments * tile + 3 * segments - 10,
                 .segments = segments,
                 .state_in = segments % 2 == 0,
                 .state_out = true,
                 .position = 5},
                std::uint64_t(segments));
    if (this->HasFailure()) return;
  }
}

TYPED_TEST_P(conv_stack_tensor_forward, states) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  index_t const tile = TypeParam::plan.tile;
  int n = 0;
  for (index_t const length : {index_t(1), index_t(37), tile - 1, tile + 8})
    for (bool const state_in : {false, true}) {
      this->check({.channels = 2,
                   .length = length,
                   .state_in = state_in,
                   .state_out = true,
                   .position = n * index_t(1000003),
                   .where = {0, n % 2}},
                  std::uint64_t(++n));
      if (this->HasFailure()) return;
    }
}

// A sequence in parts, with the state in place where that is allowed.
TYPED_TEST_P(conv_stack_tensor_forward, parts) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  using S = TypeParam;
  index_t const long_part = S::agent::in_place_length;
  pass_extents const e{
      .channels = 2, .length = long_part + 1000, .state_in = true, .state_out = true, .position = index_t(1) << 33};
  pass_problem<S> problem(e, 7);
  auto const whole = problem.params;
  tensor<float, 3> state = tensor<float, 3>::sequence(layout::batch_channels_length, 1, 2, problem.state_length);
  state.assign(problem.state_in.values());
  for (index_t from = 0, part = 0; from < e.length; part++) {
    index_t const lengths[] = {3, long_part, 401}, length = part < 3 ? lengths[part] : e.length - from;
    auto p = whole;
    p.x.data += from * p.x.stride[2], p.y.data += from * p.y.stride[2], p.x.extent[2] = p.y.extent[2] = length,
                                                                        p.position = e.position + from;
    p.state_in = state.view();
    p.state_out = length >= long_part ? state.view() : problem.state_out.view();
    problem.params = p;
    problem.set_segments(1);
    problem.run(std::uint64_t(part + 1));
    if (length < long_part) state.assign(problem.state_out.values());
    from += length;
  }
  problem.expect();
}

// An infinite or NaN input reaches at least the outputs that depend on it, and at most those that the agent documents.
TYPED_TEST_P(conv_stack_tensor_forward, special_values) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  using S = TypeParam;
  index_t before = 0, after = 0;
  for (int l = S::layers.first; l < S::layers.last; l++)
    before += 7 * S::shape.dilation(l), after += S::shape.history(l) + 14 * S::shape.dilation(l);
  index_t const length = 2 * S::plan.tile;
  pass_problem<S> problem({.channels = 2, .length = length}, 9);
  problem.run();
  auto const clean = problem.y.values();
  for (double const bad : {double(NAN), double(INFINITY)})
    for (index_t const at : {index_t(900), length - 100}) {
      double const good = to_double(*problem.x.at(at));
      *problem.x.at(at) = from_double<typename S::T>(bad);
      problem.y.clear();
      problem.run(2);
      *problem.x.at(at) = from_double<typename S::T>(good);
      for (index_t t = 0; t < 2 * length; t++) {
        double const got = to_double(*problem.y.at(t));
        if (t >= length || t < at - before || t > at + after) {
          ASSERT_EQ(got, clean[std::size_t(t)]) << "position " << t << ", bad input at " << at;
        }
      }
      if (std::isnan(bad)) { ASSERT_TRUE(std::isnan(to_double(*problem.y.at(at)))); }
    }
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_tensor_forward, lengths, segmented, states, parts, special_values);

}  // namespace
}  // namespace tcnca::testing
