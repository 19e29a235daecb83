// Gradients of chunked attention against differences of the forward pass, in fp64: along random directions (<Jv, u> = <v, J'u>) and along single coordinates.
#include "cases.hpp"

namespace tcnca::testing {
namespace {

using reference::attention::bounded;

/// The difference quotient of f along a line, against the slope that is claimed: f(h) is a number that rounding moves by at most `noise`.
template <class F>
void expect_slope(F f, double expected, double magnitude, double noise, double terms) {
  double const h = 1e-4;
  double const d1 = (f(h) - f(-h)) / (2 * h), d2 = (f(2 * h) - f(-2 * h)) / (4 * h),
               d4 = (f(4 * h) - f(-4 * h)) / (8 * h);
  // The central difference is off by c h^2; d2 - d1 is 3 c h^2. At a kink of the slope (relu2) it is off by c h, and d2 - d1 at least c h / 2.
  double const truncation = 2 * std::max(std::abs(d2 - d1), std::abs(d4 - d2) / 4);
  EXPECT_NEAR(d1, expected, truncation + noise / h + terms * 0x1p-53 * magnitude);
  EXPECT_LT(truncation + noise / h, 2e-3 * (1 + magnitude)) << "the test has no force";
}

#if !defined(__CUDACC__)  // on a device these kernels are compared with the reference, in other programs
template <class S>
struct chunked_attention_gradient : ::testing::Test {
  using problem_type = attention_problem<S>;

  static attention_extents extents(double scale) {
    return {.batch = 2,
            .heads = 2,
            .length = 23,
            .key_dim = 16,
            .value_dim = 16,
            .chunk = 9,
            .position = S::causal ? 5 : 9,
            .lengths = true,
            .state_out = S::causal,
            .scale = scale,
            .dropout = S::shape.dropout ? 0.4 : 0,
            .spread = 1};
  }
  /// All inputs that have a gradient, with it.
  template <class F>
  static void each_input(problem_type& p, F f) {
    index_t const all = p.e.chunk, filled = p.p.filled_before();
    f(p.q, p.grad_q, all), f(p.k, p.grad_k, all), f(p.v, p.grad_v, all), f(p.bias, p.grad_bias, all);
    f(p.keys_in, p.grad_keys_in, filled), f(p.values_in, p.grad_values_in, filled);
  }
  /// The elements of an input that count: all, or the filled slots of a state.
  template <class E, int Rank>
  static std::vector<E*> elements(tensor<E, Rank> const& t, bool state, index_t filled) {
    std::vector<E*> all;
    for (index_t i = 0; i < t.count(); i++)
      if (!state || i / t.view().extent[Rank - 1] % t.view().extent[Rank - 2] < filled) all.push_back(t.at(i));
    return all;
  }
  static void gather(problem_type& p, std::vector<double*>& inputs, std::vector<double*>& gradients) {
    each_input(p, [&](auto& t, auto& g, index_t filled) {
      bool const state =
          t.present() && (t.view().data == p.keys_in.view().data || t.view().data == p.values_in.view().data);
      for (double* x : elements(t, state, filled)) inputs.push_back(x);
      for (double* x : elements(g, state, filled)) gradients.push_back(x);
    });
  }
  /// <u, results>, u the gradients of the results.
  static double weighted(problem_type& p) {
    p.run_forward(1);
    double sum = 0;
    for (index_t i = 0; i < p.o.count(); i++) sum += p.p.grad_o[std::size_t(i)] * *p.o.at(i);
    auto const add = [&](auto const& state, std::vector<double> const& u) {
      for (std::size_t i = 0; i < u.size(); i++)
        if (!std::isnan(u[i])) sum += u[i] * *state.at(index_t(i));
    };
    add(p.keys_out, p.p.grad_keys_out), add(p.values_out, p.p.grad_values_out);
    return sum;
  }
  static double rounding(problem_type const& p) {
    p.judge();
    auto const r = reference::attention::forward<bounded>(p.what, p.p);
    reference::attention::sum<bounded> all;
    for (std::size_t i = 0; i < r.o.size(); i++) all.add(bounded(p.p.grad_o[i]), r.o[i]);
    auto const add = [&](std::vector<double> const& u, std::vector<double> const& state) {
      for (std::size_t i = 0; i < u.size(); i++)
        if (!std::isnan(u[i])) all.add(bounded(u[i]), bounded(state[i]));
    };
    add(p.p.grad_keys_out, reference::attention::keys_out(p.p)),
        add(p.p.grad_values_out, reference::attention::values_out(p.p));
    return all.get().e;
  }
};

template <class B>
using subjects_on = unless_sanitized<
    std::tuple<attention_subject<B, double, softmax_plain>, attention_subject<B, double, softmax_causal_bias>,
               attention_subject<B, double, softmax_causal_bias_dropout>,
               attention_subject<B, double, laplace_causal_bias>, attention_subject<B, double, laplace_dropout>,
               attention_subject<B, double, relu2_causal>>,
    std::tuple<attention_subject<B, double, softmax_causal_bias_dropout>>>;
using types = everywhere<subjects_on, one_backend>;
TYPED_TEST_SUITE(chunked_attention_gradient, types, attention_subject_name);

TYPED_TEST(chunked_attention_gradient, is_the_slope_of_the_forward_pass) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (double const scale : {0.0, 0.3}) {
    attention_problem<S> problem(this->extents(scale), 4);
    problem.p.lengths = {1000, 19};
    problem.run_forward(1);
    problem.run_backward(1);
    std::vector<double*> inputs, gradients;
    this->gather(problem, inputs, gradients);
    ASSERT_EQ(inputs.size(), gradients.size());
    std::vector<double> at, grad;
    for (double const* x : inputs) at.push_back(*x);
    for (double const* x : gradients) grad.push_back(*x);
    double const noise = this->rounding(problem);
    auto const expect = [&](std::vector<double> const& v) {
      double expected = 0, magnitude = 0;
      for (std::size_t i = 0; i < v.size(); i++) expected += v[i] * grad[i], magnitude += std::abs(v[i] * grad[i]);
      auto const moved = [&](double h) {
        for (std::size_t i = 0; i < v.size(); i++) *inputs[i] = at[i] + h * v[i];
        double const sum = this->weighted(problem);
        for (std::size_t i = 0; i < v.size(); i++) *inputs[i] = at[i];
        return sum;
      };
      expect_slope(moved, expected, magnitude, noise, double(v.size()));
    };
    random_bits r{8};
    for (int i = 0; i < 4; i++) {  // everything at once
      std::vector<double> v(grad.size());
      for (double& e : v) e = uniform(r);
      expect(v);
    }
    std::size_t begin = 0;
    this->each_input(problem, [&](auto const& t, auto const&, index_t filled) {  // some coordinates of each input
      bool const state = t.present() && (t.view().data == problem.keys_in.view().data ||
                                         t.view().data == problem.values_in.view().data);
      auto const n = this->elements(t, state, filled).size();
      for (int i = 0; i < 6 && n > 0; i++) {
        std::vector<double> v(grad.size());
        v[begin + std::size_t(r.below(int(n)))] = 1;
        expect(v);
      }
      begin += n;
    });
  }
}

#endif

template <class B>
struct chunked_attention_rotary : ::testing::Test {};
#if defined(__CUDACC__)
TYPED_TEST_SUITE(chunked_attention_rotary, ::testing::Types<cuda_backend>);
#else
struct backend_name {
  template <class B>
  static std::string GetName(int) {
    return B::name;
  }
};
using rotary_backends = ::testing::Types<cpu_backend, fiber_backend<>>;
TYPED_TEST_SUITE(chunked_attention_rotary, rotary_backends, backend_name);
#endif

/// A table and its gradients, from random numbers.
template <class B, class T>
struct rotary_problem {
  using A = accumulate_t<T>;
  using op = chunked_attention<T, chunked_attention_shape{.bias = true}>;
  index_t heads, dim, chunk;
  tensor<A, 2> a, b, bias, grad_bias, grad_a, grad_b;
  rotary_problem(index_t h, index_t d, index_t c, placement where, std::uint64_t seed) : heads(h), dim(d), chunk(c) {
    random_bits r{seed};
    for (auto* t : {&a, &b, &grad_a, &grad_b}) *t = tensor<A, 2>({h, d}, {0, 1}, where);
    for (auto* t : {&bias, &grad_bias}) *t = tensor<A, 2>({h, 2 * c - 1}, {0, 1}, where);
    for (auto* t : {&a, &b, &grad_bias})
      for (index_t i = 0; i < t->count(); i++) *t->at(i) = A(uniform(r));
  }
  void run(std::uint64_t seed) {
    typename op::rotary_args f;
    f.a = a.view(), f.b = b.view(), f.bias = bias.view(), f.chunk = chunk;
    status const s = op::rotary(B::make(seed), f);
    ASSERT_TRUE(s.ok()) << to_string(s) << ": " << s.argument();
    typename op::rotary_backward_args g;
    g.a = a.view(), g.b = b.view(), g.grad_bias = grad_bias.view(), g.grad_a = grad_a.view(), g.grad_b = grad_b.view(),
    g.chunk = chunk;
    status const t = op::rotary_backward(B::make(seed), g);
    ASSERT_TRUE(t.ok()) << to_string(t) << ": " << t.argument();
    B::finish();
  }
};

TYPED_TEST(chunked_attention_rotary, matches_the_reference) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  namespace r = reference::attention;
  std::uint64_t seed = 1;
  auto const check = [&]<class T>(T, index_t heads, index_t dim, index_t chunk) {
    SCOPED_TRACE(::testing::Message() << name_of<T> << ", heads " << heads << ", dim " << dim << ", chunk " << chunk
                                      << ", seed " << seed);
    rotary_problem<B, T> p(heads, dim, chunk, seed % 2 ? placement{} : placement{3, 1}, seed);
    p.run(seed++);
    using judge = attention_problem<attention_subject<B, T, softmax_bias>>;
    judge::judge();
    auto const a = p.a.values(), b = p.b.values();
    EXPECT_TRUE(judge::matches(p.bias, r::rotary<bounded>(heads, dim, chunk, a, b))) << "bias";
    auto const g = r::rotary_backward<bounded>(heads, dim, chunk, a, b, p.grad_bias.values());
    EXPECT_TRUE(judge::matches(p.grad_a, g.a)) << "grad_a";
    EXPECT_TRUE(judge::matches(p.grad_b, g.b)) << "grad_b";
    EXPECT_TRUE(p.bias.intact() && p.grad_a.intact() && p.grad_b.intact());
    auto const bits = std::vector{p.bias.bits(), p.grad_a.bits(), p.grad_b.bits()};
    p.bias.clear(), p.grad_a.clear(), p.grad_b.clear();
    p.run(seed + 7);
    EXPECT_TRUE((bits == std::vector{p.bias.bits(), p.grad_a.bits(), p.grad_b.bits()}));
  };
  for (index_t const dim : {16, 24, 128})
    for (index_t const chunk : {1, 2, 17, 300}) check(float{}, 2, dim, chunk), check(double{}, 3, dim, chunk);
  check(bf16{}, 1, 16, 5), check(float{}, 0, 16, 5);
}

TYPED_TEST(chunked_attention_rotary, gradient_is_the_slope) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  rotary_problem<B, double> p(2, 16, 12, {}, 3);
  p.run(1);
  using judge = attention_problem<attention_subject<B, double, softmax_bias>>;
  judge::judge();
  auto const table = reference::attention::rotary<bounded>(2, 16, 12, p.a.values(), p.b.values());
  reference::attention::sum<bounded> all;
  for (std::size_t i = 0; i < table.size(); i++) all.add(bounded(*p.grad_bias.at(index_t(i))), table[i]);
  auto const a = p.a.values(), b = p.b.values(), grad_a = p.grad_a.values(), grad_b = p.grad_b.values();
  random_bits r{5};
  for (int n = 0; n < 8; n++) {
    std::vector<double> u(a.size()), v(a.size());
    for (std::size_t i = 0; i < u.size(); i++) u[i] = n < 4 ? uniform(r) : 0, v[i] = n < 4 ? uniform(r) : 0;
    if (n >= 4) (n % 2 ? u : v)[std::size_t(r.below(int(u.size())))] = 1;
    double expected = 0, magnitude = 0;
    for (std::size_t i = 0; i < u.size(); i++) {
      expected += u[i] * grad_a[i] + v[i] * grad_b[i];
      magnitude += std::abs(u[i] * grad_a[i]) + std::abs(v[i] * grad_b[i]);
    }
    auto const moved = [&](double h) {
      for (std::size_t i = 0; i < u.size(); i++)
        *p.a.at(index_t(i)) = a[i] + h * u[i], *p.b.at(index_t(i)) = b[i] + h * v[i];
      p.run(1);
      double sum = 0;
      for (index_t i = 0; i < p.bias.count(); i++) sum += *p.grad_bias.at(i) * *p.bias.at(i);
      p.a.assign(a), p.b.assign(b);
      return sum;
    };
    expect_slope(moved, expected, magnitude, all.get().e, 64);
  }
}

}  // namespace
}  // namespace tcnca::testing
