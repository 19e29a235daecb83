// The parts of models against their equations, on every executor; gradients against differences of the forward pass.
#include "../adam.hpp"
#include "support/model_part_cases.hpp"

namespace tcnca::testing {
namespace {

using models::embedding_kind;
using models::norm_kind;
constexpr norm_kind all_norms[] = {norm_kind::layer, norm_kind::scale, norm_kind::rms, norm_kind::batch};

/// An executor and an element type.
template <class B, class T>
struct part_subject {
  using backend = B;
  using number = T;
};
template <class S>
struct model_parts : ::testing::Test {
  template <class Case>
  static void check(Case const& c) {
    expect_part<typename S::number, typename S::backend>(c);
  }
};
TYPED_TEST_SUITE_P(model_parts);

TYPED_TEST_P(model_parts, norms) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  for (norm_kind const kind : all_norms)
    for (index_t const channels : {1, 3, 16, 37, 64, 300}) {
      this->check(norm_case{kind, {2, channels > 64 ? 4 : 19, channels}, channels % 2 == 1});
      if (kind == norm_kind::batch) this->check(norm_case{kind, {3, 17, channels, {17, 0, 5}}, channels % 2 == 0});
    }
}
TYPED_TEST_P(model_parts, linear_maps) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  this->check(linear_case{{1, 1, 1}, 1});
  this->check(linear_case{{2, 33, 5}, 37});
  this->check(linear_case{{3, 50, 33}, 7});
}
TYPED_TEST_P(model_parts, embeddings) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  for (index_t const channels : {1, 5, 40}) {
    this->check(embedding_case{embedding_kind::table, {3, 21, channels}, 9});
    this->check(embedding_case{embedding_kind::level, {3, 21, channels}, 256});
  }
}
TYPED_TEST_P(model_parts, pooling) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  for (index_t const channels : {1, 7, 33, 100}) {
    this->check(pooling_case{{2, 45, channels}});
    this->check(pooling_case{{4, 45, channels, {1, 45, 0, 20}}});
  }
}
TYPED_TEST_P(model_parts, cross_entropy) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  for (index_t const classes : {1, 2, 5, 19, 256, 1100})
    this->check(cross_entropy_case{classes > 256 ? 3 : 13, classes});
  this->check(cross_entropy_case{300, 3});
}
TYPED_TEST_P(model_parts, feed_forward) {
  TCNCA_TEST_NEEDS(TypeParam::backend);
  this->check(feed_forward_case{{2, 11, 6}, 10});
}

TYPED_TEST_P(model_parts, passes_over_elements) {
  using T = typename TypeParam::number;
  using E = typename TypeParam::backend::executor;
  TCNCA_TEST_NEEDS(TypeParam::backend);
  for (index_t const n : {0, 1, 15, 4096, 9001}) {
    part_memory<T, E> m(2, 1, 1);
    auto const x = m.c.kept.take(n), y = m.c.kept.take(n);
    m.c.commit();
    E const e = m.c.executor();
    T *const px = m.c.kept[x], *const py = m.c.kept[y];
    numbers const v = some_numbers(size_t(n), 1);
    auto const expect = [&](char const* what, double roundings, auto f) {
      numbers expected;
      for (double a : v) expected.push_back(f(a));
      expect_near<T>(what, m.get(py, size_t(n)), expected, roundings);
    };
    m.put(px, v);
    models::fill(e, n, T(0.5), py);
    expect("fill", 0, [](double) { return 0.5; });
    models::add(e, n, px, py);
    expect("add", 1, [](double a) { return 0.5 + a; });
    models::copy(e, n, px, py);
    expect("copy", 0, [](double a) { return a; });
    // fp32 activations on the CPU are polynomials with a guaranteed error of 1.5e-7, which is 3 units.
    auto const logistic = [](double a) { return 1 / (1 + std::exp(-a)); };
    auto const phi = [](double a) { return 0.5 * std::erfc(-a / std::sqrt(2.)); };
    auto const density = [](double a) { return std::exp(-a * a / 2) / std::sqrt(2 * std::acos(-1.)); };
    models::silu(e, n, px, py);
    expect("silu", 8, [&](double a) { return a * logistic(a); });
    models::silu_backward(e, n, px, px, py);
    expect("silu_backward", 8, [&](double a) { return a * logistic(a) * (1 + a * (1 - logistic(a))); });
    models::gelu(e, n, px, py);
    expect("gelu", 8, [&](double a) { return a * phi(a); });
    models::gelu_backward(e, n, px, px, py);
    expect("gelu_backward", 8, [&](double a) { return a * (phi(a) + a * density(a)); });
    EXPECT_TRUE(models::all_finite(m.c, n, px));
    if (n == 0) continue;
    numbers bad = v;
    bad[size_t(n) - 1] =
        n % 2 == 1 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
    m.put(px, bad);
    EXPECT_FALSE(models::all_finite(m.c, n, px));
  }
}

TYPED_TEST_P(model_parts, dropout_is_a_function_of_seed_step_site_and_element) {
  using T = typename TypeParam::number;
  using E = typename TypeParam::backend::executor;
  TCNCA_TEST_NEEDS(TypeParam::backend);
  for (index_t const n : {1, 4, 1023, 5001}) {
    part_memory<T, E> m(2, 1, 1);
    auto const x = m.c.kept.take(n);
    m.c.commit();
    m.c.seed = 0x123456789abcdefu, m.c.step = 77;
    m.put(m.c.kept[x], numbers(size_t(n), 3));
    models::dropout(m.c, 0.25, 9, n, m.c.kept[x]);
    numbers expected;
    for (index_t i = 0; i < n; i++)
      expected.push_back(philox(m.c.seed, {{uint32(i / 4), 0, 77, 9}}).word[i % 4] < (uint32(1) << 30)
                             ? 0
                             : double(T(1 / 0.75) * T(3)));
    EXPECT_EQ(m.get(m.c.kept[x], size_t(n)), expected);
    m.c.training = false;
    models::dropout(m.c, 0.25, 10, n, m.c.kept[x]);
    EXPECT_EQ(m.get(m.c.kept[x], size_t(n)), expected);
  }
}

/// Three training steps of a batch norm: parameters, running statistics, and the result of the trained norm.
TYPED_TEST_P(model_parts, adam_and_running_statistics) {
  using T = typename TypeParam::number;
  using E = typename TypeParam::backend::executor;
  TCNCA_TEST_NEEDS(TypeParam::backend);
  index_t const d = 5, rows = 12;
  part_memory<T, E> m(2, 3, 4);
  models::norm<T, E> const part(m.c, norm_kind::batch, d);
  auto const big = m.c.parameter(9001, {.deviation = 1});  // more than one block of the gradient's norm
  auto const x = m.c.kept.take(rows * d), y = m.c.kept.take(rows * d);
  m.c.commit(), m.c.commit_scratch();
  m.c.initialise(3);
  models::adam_config const config{.beta1 = 0.8, .beta2 = 0.95, .decay = 0.1, .clip = 2};
  models::adam<T, E> optimiser(m.c, config);
  size_t const count = m.c.values.count();
  numbers value = m.get(m.c.values.data(), count), first(count), second(count), mean(5), variance(5, 1);
  double const unit = std::numeric_limits<T>::epsilon() / 2;

  for (int step = 1; step <= 4; step++) {
    numbers const in = some_numbers(size_t(rows * d), std::uint64_t(step));
    m.put(m.c.kept[x], in);
    part.forward(m.c, m.c.kept[x], m.c.kept[y]);
    numbers g(count);
    numbers const drawn = some_numbers(9001, std::uint64_t(step) + 10);
    for (size_t i = 0; i < drawn.size(); i++)
      g[big.offset + i] = step == 2 ? drawn[i] / 1024 : drawn[i];  // the second step is not clipped
    if (step == 3) g[big.offset + 8999] = std::numeric_limits<double>::infinity();
    m.put(m.c.gradients.data(), g);
    if (step == 3) {  // neither a non-finite gradient nor a non-finite loss changes anything
      EXPECT_FALSE(std::isfinite(optimiser.step(m.c, 0.01)));
      m.put(m.c.gradients.data(), numbers(count, 0.5));
      optimiser.step(m.c, 0.01, std::numeric_limits<double>::quiet_NaN());
    } else {
      double square = 0;
      for (double v : g) square += v * v;
      double const norm = std::sqrt(square), shrink = norm > 2 ? 2 / norm : 1;
      EXPECT_NEAR(optimiser.step(m.c, 0.01), norm, 9001 * 0x1p-53 * norm);
      double const n = double(optimiser.steps());
      EXPECT_EQ(n, step > 3 ? step - 1 : step);
      for (size_t i = 0; i < count; i++) {
        first[i] = 0.8 * first[i] + 0.2 * shrink * g[i],
        second[i] = 0.95 * second[i] + 0.05 * shrink * g[i] * shrink * g[i];
        value[i] -= 0.01 * 0.1 * value[i] +
                    0.01 * first[i] / (1 - std::pow(0.8, n)) / (std::sqrt(second[i] / (1 - std::pow(0.95, n))) + 1e-8);
      }
      for (size_t k = 0; k < size_t(d); k++) {
        double sum = 0, squares = 0;
        for (size_t r = 0; r < size_t(rows); r++) sum += in[r * size_t(d) + k];
        for (size_t r = 0; r < size_t(rows); r++) squares += std::pow(in[r * size_t(d) + k] - sum / double(rows), 2);
        mean[k] += 0.1 * (sum / double(rows) - mean[k]),
            variance[k] += 0.1 * (squares / double(rows - 1) - variance[k]);
      }
    }
    // 1 - beta2 has an error of one unit of 1, which is 20 of its own units; so have the moments after three steps.
    expect_near<T>("values", m.get(m.c.values.data(), count), value, 200);
    expect_near<T>("first moments", m.get(optimiser.first(), count), first, 100);
    expect_near<T>("second moments", m.get(optimiser.second(), count), second, 100);
    numbers const running = m.get(m.c.statistics.data(), m.c.statistics.count());
    size_t const apart = m.c.statistics.count() / 2;
    for (size_t k = 0; k < size_t(d); k++) {
      EXPECT_NEAR(running[k], mean[k], 64 * unit) << "step " << step;
      EXPECT_NEAR(running[apart + k], variance[k], 64 * unit) << "step " << step;
    }
  }
  m.c.training = false;
  part.forward(m.c, m.c.kept[x], m.c.kept[y]);
  numbers const in = some_numbers(size_t(rows * d), 4);
  numbers expected;
  for (size_t i = 0; i < in.size(); i++) {
    size_t const k = i % size_t(d), gain = 0, bias = m.c.parameters()[1].where.offset;
    expected.push_back(value[gain + k] * (in[i] - mean[k]) / std::sqrt(variance[k] + 1e-5) + value[bias + k]);
  }
  expect_near<T>("by the running statistics", m.get(m.c.kept[y], in.size()), expected, 400);
}

REGISTER_TYPED_TEST_SUITE_P(model_parts, norms, linear_maps, embeddings, pooling, cross_entropy, feed_forward,
                            passes_over_elements, dropout_is_a_function_of_seed_step_site_and_element,
                            adam_and_running_statistics);
#if defined(__CUDACC__)
using subjects = ::testing::Types<part_subject<cuda_backend, double>, part_subject<cuda_backend, float>>;
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, model_parts, subjects);
#else
using on_cpu = ::testing::Types<part_subject<cpu_backend, double>, part_subject<cpu_backend, float>>;
using on_fibers = ::testing::Types<part_subject<fiber_backend<>, double>, part_subject<fiber_backend<>, float>>;
INSTANTIATE_TYPED_TEST_SUITE_P(cpu, model_parts, on_cpu);
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, model_parts, on_fibers);

TEST(model_part_gradients, match_differences) {
  for (norm_kind const kind : all_norms)
    for (bool const add : {false, true}) expect_slopes(norm_case{kind, {2, 5, 7}, add});
  expect_slopes(norm_case{norm_kind::batch, {3, 4, 3, {4, 1, 2}}});
  expect_slopes(linear_case{{2, 3, 5}, 4});
  expect_slopes(embedding_case{embedding_kind::table, {2, 9, 3}, 4});
  expect_slopes(embedding_case{embedding_kind::level, {2, 9, 3}, 256});
  expect_slopes(pooling_case{{2, 5, 3}});
  expect_slopes(pooling_case{{3, 5, 3, {5, 0, 2}}});
  expect_slopes(cross_entropy_case{5, 4});
  expect_slopes(feed_forward_case{{2, 3, 4}, 5});
}

/// The CPU processes many rows in blocks; fibers do not.
TEST(model_part_blocks, equal_one_pass) {
  auto const check = [](auto const& part) {
    expect_part<double, cpu_backend>(part), expect_part<float, cpu_backend>(part);
    auto const inputs = part.inputs();
    part_results const blocks = part.template run<double, cpu>(inputs, 1),
                       whole = part.template run<double, fibers<>>(inputs, 1);
    for (size_t n = 0; n < inputs.size(); n++)
      expect_near<double>("gradient", blocks.gradients[n], whole.gradients[n], part.roundings());
  };
  check(linear_case{{2, 4101, 5}, 33});
  check(feed_forward_case{{2, 4101, 5}, 33});
}

TEST(model_memory, lengths_are_checked) {
  models::context<float, cpu> c(1, 2, 8);
  c.commit();
  std::int64_t const good[] = {8, 0}, long_one[] = {3, 9}, negative[] = {-1, 2};
  c.set_lengths(good);
  EXPECT_EQ(c.valid_rows(), 8);
  EXPECT_THROW(c.set_lengths(long_one), std::invalid_argument);
  EXPECT_THROW(c.set_lengths(negative), std::invalid_argument);
  c.set_lengths(nullptr);
  EXPECT_EQ(c.valid_rows(), 16);
}
#endif

}  // namespace
}  // namespace tcnca::testing
