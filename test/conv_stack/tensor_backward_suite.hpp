// Tests of the backward pass on tensor cores, on fibers and on a CUDA device: against a reference that rounds to T
// where the kernel does, and within derived bounds of one that does not round.
#pragma once
#include <tcnca/conv_stack/tensor/backward.hpp>
#include <tcnca/launch/alignment.hpp>
#include <tcnca/launch/launch.hpp>

#include "problem.hpp"

namespace tcnca::testing {
namespace {

template <class Backend, class Element, class Case>
struct pass_subject {
  using backend = Backend;
  using T = Element;
  static constexpr conv_stack_shape shape = Case::shape;
  static constexpr layer_range layers = Case::layers;
  static constexpr int max_bytes = Case::max_bytes;
  static constexpr tensor_backward_plan plan = tensor_backward_plan_of<shape, layers, max_bytes>;
  using group = typename executor_traits<typename Backend::executor>::template group<plan.threads()>;
  using agent = conv_stack_tensor_backward_agent<group, T, shape, layers, max_bytes>;
  static std::string name() { return std::string(Backend::name) + "_" + name_of<T> + "_" + Case::name; }
};
template <class T, class Case>
struct pass_case {
  template <class Backend>
  using on = pass_subject<Backend, T, Case>;
};

// Lines, rows, and a dilation of several rows, in small tiles.
struct relu {
  static constexpr char const* name = "relu";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 6, .dilation_base = 4, .act = activation::relu, .bias = true};
  static constexpr layer_range layers{0, 5};
  static constexpr int max_bytes = 80 * 1024;
};
// The default instantiation of this stack.
struct relu_4096 {
  static constexpr char const* name = "relu_4096";
  static constexpr conv_stack_shape shape = relu::shape;
  static constexpr layer_range layers{0, 6};
  static constexpr int max_bytes = tensor_backward_bytes;
};
// Two units a warp, long histories in lines; no activation.
struct linear {
  static constexpr char const* name = "linear";
  static constexpr conv_stack_shape shape{.taps = 8, .depth = 4, .dilation_base = 8};
  static constexpr layer_range layers{0, 4};
  static constexpr int max_bytes = tensor_backward_bytes_sm_80;
};
// Rings of sums and of gradients of outputs.
struct residuals {
  static constexpr char const* name = "residuals";
  static constexpr conv_stack_shape shape{
      .taps = 3, .dilations = {2, 1, 96}, .act = activation::tanh, .residuals = residual::level, .bias = true};
  static constexpr layer_range layers{0, 3};
  static constexpr int max_bytes = 64 * 1024;
};
// Rings of sums instead of inputs; neither the first nor the last layers of their stack.
struct inner_layers {
  static constexpr char const* name = "inner_layers";
  static constexpr conv_stack_shape shape{.taps = 5, .depth = 5, .dilation_base = 4, .act = activation::silu};
  static constexpr layer_range layers{1, 4};
  static constexpr int max_bytes = 64 * 1024;
};
struct one_level {
  static constexpr char const* name = "one_level";
  static constexpr conv_stack_shape shape{
      .taps = 17, .depth = 2, .dilation_base = 16, .act = activation::relu, .residuals = residual::level, .bias = true};
  static constexpr layer_range layers{1, 2};
  static constexpr int max_bytes = 32 * 1024;
};

struct pass_extents {
  index_t batch = 1, channels = 1, length = 1;
  int segments = 1;
  placement where = {};
  bool in_place = false;
  friend std::ostream& operator<<(std::ostream& out, pass_extents const& e) {
    return out << e.batch << " x " << e.channels << " x " << e.length << ", segments " << e.segments << ", padding "
               << e.where.padding << ", offset " << e.where.offset << (e.in_place ? ", in place" : "");
  }
};

template <class S>
struct pass_problem {
  using T = typename S::T;
  using agent = typename S::agent;
  using executor = typename S::backend::executor;
  static constexpr conv_stack_shape shape = S::shape;
  static constexpr int depth = S::layers.count(), taps = shape.taps, rows = depth * (taps + (shape.bias ? 1 : 0));
  static constexpr bool has_residual = shape.residuals != residual::none;
  // Which sums the kernel keeps, rounded, for the derivative of the activation.
  static constexpr bool stores_sums = shape.act != activation::none && shape.act != activation::relu && !has_residual;

  pass_extents e;
  reference::activation const act = describe(shape).act;
  tensor<T, 3> x, grad_y, grad_x, weight;
  tensor<T, 2> bias;
  tensor<float, 3> sums;
  typename agent::params_type params{};

  explicit pass_problem(pass_extents const& extents, std::uint64_t seed) : e(extents) {
    random_bits r{seed * 1000 + std::uint64_t(e.length)};
    auto const new_sequence = [&] {
      return tensor<T, 3>::sequence(shape.order, e.batch, e.channels, e.length, e.where);
    };
    x = new_sequence(), grad_y = new_sequence(), grad_x = new_sequence();
    weight = tensor<T, 3>({shape.layers(), taps, e.channels}, {0, 1, 2});
    bias = tensor<T, 2>({shape.layers(), e.channels}, {0, 1});
    fill(x, r, 1.5), fill(grad_y, r, 1.5), fill(weight, r, 2 / std::sqrt(double(taps))), fill(bias, r, 0.5);
    index_t const length = max_of(e.length, index_t(1)), grain = agent::segment_grain;
    params.segment_length = int(round_up(divide_up(length, index_t(e.segments)), grain));
    params.segments = int(divide_up(length, index_t(params.segment_length)));
    sums = tensor<float, 3>({e.batch * params.segments, rows, e.channels}, {0, 1, 2});
    params.x = x.view(), params.grad_y = grad_y.view(), params.grad_x = grad_x.view();
    params.weight = weight.view(), params.sums = sums.view();
    if (shape.bias) params.bias = bias.view();
    params.x_vectorizable = is_vectorizable<executor>(params.x, shape.order, 8);
    params.grad_y_vectorizable = is_vectorizable<executor>(params.grad_y, shape.order, 8);
    params.grad_x_vectorizable = is_vectorizable<executor>(params.grad_x, shape.order, 8);
  }
  void run(std::uint64_t seed) {
    auto p = params;
    if (e.in_place) {
      grad_x.assign(grad_y.values());
      p.grad_y = grad_x.view();
    }
    status const s = tcnca::launch<agent>(S::backend::make(seed), p);
    ASSERT_TRUE(s.ok()) << to_string(s);
    S::backend::finish();
  }

  // The reference, for numbers N: bounds of an implementation that rounds, around values without rounding; or values
  // with the roundings of the kernel.
  static double stored(double v) { return to_double(from_double<T>(v)); }
  static reference::bounded stored(reference::bounded v) { return reference::stored(v); }
  double activated(double v) const { return reference::detail::value(act, v); }
  reference::bounded activated(reference::bounded v) const { return reference::detail::activate(act, v); }
  template <class N>
  struct result {
    std::vector<N> grad_x, sums;
    std::vector<double> squares;  // of the terms of each sum
  };
  template <class N>
  result<N> solve() const {
    auto const sum_count = std::size_t(rows * e.channels);
    result<N> r{{}, std::vector<N>(sum_count, N(0)), std::vector<double>(sum_count)};
    std::vector<reference::sum<N>> totals(sum_count);
    for (index_t row = 0; row < e.batch * e.channels; row++) {
      index_t const c = row % e.channels, length = e.length;
      auto const w = [&](int l, int k) {
        return N(to_double(*weight.at(((S::layers.first + l) * taps + k) * e.channels + c)));
      };
      using series = std::vector<N>;
      auto const size = std::size_t(length);
      std::vector<series> input(depth + 1, series(size, N(0))), pre(depth, series(size, N(0)));
      series output_grad(size, N(0));
      for (index_t t = 0; t < length; t++)
        input[0][std::size_t(t)] = N(to_double(*x.at(row * length + t))),
        output_grad[std::size_t(t)] = N(to_double(*grad_y.at(row * length + t)));
      for (int l = 0; l < depth; l++) {
        index_t const d = shape.dilation(S::layers.first + l);
        N const b = N(shape.bias ? to_double(*bias.at((S::layers.first + l) * e.channels + c)) : 0);
        for (index_t t = 0; t < length; t++) {
          auto const i = std::size_t(t);
          reference::sum<N> total;
          total.add(b, N(1));
          for (int k = 0; k < taps && t - k * d >= 0; k++)
            total.add(w(l, k), input[std::size_t(l)][std::size_t(t - k * d)]);
          bool const is_last = l + 1 == depth;
          N const sum = total.get(), kept = is_last || act == reference::activation::none ? sum : stored(sum);
          pre[std::size_t(l)][i] = kept;
          N out = activated(stores_sums ? kept : sum);
          if (has_residual) out = out + input[std::size_t(l)][i];
          input[std::size_t(l) + 1][i] = stored(out);
        }
      }
      for (int l = depth - 1; l >= 0; l--) {
        index_t const d = shape.dilation(S::layers.first + l);
        series grad(size, N(0)), next(size, N(0));
        for (index_t t = 0; t < length; t++) {
          auto const i = std::size_t(t);
          N const g = output_grad[i];
          grad[i] = act == reference::activation::none
                        ? stored(g)
                        : stored(g * N(reference::detail::derivative(act, pre[std::size_t(l)][i])));
          auto const add = [&](int parameter, N in) {
            auto const j = std::size_t(parameter * e.channels + c);
            totals[j].add(grad[i], in);
            double const term = reference::value_of(grad[i]) * reference::value_of(in);
            r.squares[j] += term * term;
          };
          for (int k = 0; k < taps && t - k * d >= 0; k++)
            add(l * taps + k, input[std::size_t(l)][std::size_t(t - k * d)]);
          if (shape.bias) add(depth * taps + l, N(1));
        }
        for (index_t t = 0; t < length; t++) {
          reference::sum<N> total;
          for (int k = 0; k < taps && t + k * d < length; k++) total.add(w(l, k), grad[std::size_t(t + k * d)]);
          next[std::size_t(t)] = total.get();
          if (has_residual) next[std::size_t(t)] = next[std::size_t(t)] + stored(output_grad[std::size_t(t)]);
        }
        output_grad = std::move(next);
      }
      for (N const& g : output_grad) r.grad_x.push_back(stored(g));
    }
    for (std::size_t i = 0; i < sum_count; i++) r.sums[i] = totals[i].get();
    return r;
  }

  void expect() const {
    use_arithmetic_of<T>();
    auto const exact = solve<reference::bounded>();
    auto const rounded = solve<double>();
    std::vector<double> value, bound;
    std::size_t different = 0;
    for (std::size_t i = 0; i < exact.grad_x.size(); i++) {
      value.push_back(exact.grad_x[i].v), bound.push_back(exact.grad_x[i].e);
      different += to_double(*grad_x.at(index_t(i))) != rounded.grad_x[i];
    }
    EXPECT_TRUE(within(grad_x, value, bound));
    // Sums in fp32 and in fp64 rarely round to different elements.
    EXPECT_LE(different, value.size() / 50 + 2) << "of " << value.size();
    EXPECT_TRUE(grad_x.intact() && sums.intact());
    for (std::size_t i = 0; i < exact.sums.size(); i++) {
      double got = 0;
      for (index_t part = 0; part < e.batch * params.segments; part++)
        got += double(*sums.at(part * rows * e.channels + index_t(i)));
      EXPECT_LE(std::abs(got - exact.sums[i].v), exact.sums[i].e) << "sum " << i;
      EXPECT_LE(std::abs(got - rounded.sums[i]), 1e-3 * std::sqrt(rounded.squares[i]) + 1e-6) << "sum " << i;
    }
  }
};

/// Whether the device has the shared memory that a plan needs.
inline bool fits([[maybe_unused]] tensor_backward_plan const& plan) {
#if defined(__CUDACC__)
  int limit = 0;
  return cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0) == cudaSuccess &&
         plan.bytes <= limit;
#else
  return true;
#endif
}

template <class S>
struct conv_stack_tensor_backward : ::testing::Test {
  void SetUp() override {
    TCNCA_TEST_NEEDS(S::backend);
    if (!fits(S::plan)) GTEST_SKIP() << "a block needs " << S::plan.bytes << " bytes of shared memory";
    using executor = typename S::backend::executor;
    if constexpr (clustered<typename S::agent>) {
      if (!executor_traits<executor>::template supports<typename S::agent, typename S::agent::params_type>(executor{}))
        GTEST_SKIP() << "compiled for a device without clusters";
    }
  }
  void check(pass_extents const& e, std::uint64_t seed) {
    SCOPED_TRACE(e);
    pass_problem<S> problem(e, seed);
    problem.run(seed);
    if (!this->HasFailure()) problem.expect();
  }
};
TYPED_TEST_SUITE_P(conv_stack_tensor_backward);

// Lengths around the boundaries of vectors and tiles; rows with and without alignment; several rows a group.
TYPED_TEST_P(conv_stack_tensor_backward, lengths) {
  index_t const tile = TypeParam::plan.tile, few = clustered<typename TypeParam::agent> ? 8 : 1;
  this->check({.length = 0}, 1);
  this->check({.length = 1}, 1);
  this->check({.batch = 2, .channels = 2, .length = 203, .where = {0, 1}}, 2);
  this->check({.channels = few, .length = tile, .where = {8, 8}}, 3);
  this->check({.channels = few + 1, .length = tile + 1, .where = {7, 0}}, 4);
}

// The sums of all segments are those of the row.
TYPED_TEST_P(conv_stack_tensor_backward, segmented) {
  index_t const tile = TypeParam::plan.tile, few = clustered<typename TypeParam::agent> ? 8 : 1;
  this->check({.channels = few, .length = 2 * tile - 9, .segments = 2}, 5);
  if (tile < 4096) {
    this->check({.length = 5 * tile + 24, .segments = 3}, 6);
    this->check({.batch = 2, .length = 3 * tile + 8, .segments = 4}, 7);
  }
}

TYPED_TEST_P(conv_stack_tensor_backward, in_place) {
  this->check(
      {.channels = clustered<typename TypeParam::agent> ? 8 : 1, .length = TypeParam::plan.tile + 72, .in_place = true},
      8);
}

// The same bits for every order of threads and of items.
TYPED_TEST_P(conv_stack_tensor_backward, repeats_bit_by_bit) {
  pass_problem<TypeParam> problem({.channels = 2, .length = 1003, .where = {5, 0}}, 9);
  problem.run(1);
  auto const grad_x = problem.grad_x.bits(), sums = problem.sums.bits();
  for (std::uint64_t seed = 2; seed < 4; seed++) {
    problem.grad_x.clear(), problem.sums.clear();
    problem.run(seed);
    ASSERT_TRUE(problem.grad_x.bits() == grad_x && problem.sums.bits() == sums) << "seed " << seed;
  }
}

REGISTER_TYPED_TEST_SUITE_P(conv_stack_tensor_backward, lengths, segmented, in_place, repeats_bit_by_bit);

}  // namespace
}  // namespace tcnca::testing
