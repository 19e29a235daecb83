// The rotary table and its gradients against the reference, and against difference quotients in fp64.
#include "cases.hpp"
#include "support/gradient.hpp"

namespace tcnca::testing {
namespace {

using reference::attention::bounded;

template <class B>
struct chunked_attention_rotary : ::testing::Test {};
TYPED_TEST_SUITE(chunked_attention_rotary, list_of<backends>::type, backend_name);

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
    run_backward(backward(), seed);
  }
  typename op::rotary_backward_args backward() const {
    typename op::rotary_backward_args g;
    g.a = a.view(), g.b = b.view(), g.grad_bias = grad_bias.view(), g.grad_a = grad_a.view(), g.grad_b = grad_b.view(),
    g.chunk = chunk;
    return g;
  }
  static void run_backward(typename op::rotary_backward_args const& g, std::uint64_t seed) {
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
    using problem = attention_problem<attention_subject<B, T, softmax_bias>>;
    use_arithmetic_of<T>();
    auto const a = p.a.values(), b = p.b.values();
    EXPECT_TRUE(problem::matches(p.bias, r::rotary<bounded>(heads, dim, chunk, a, b))) << "bias";
    auto const g = r::rotary_backward<bounded>(heads, dim, chunk, a, b, p.grad_bias.values());
    EXPECT_TRUE(problem::matches(p.grad_a, g.a)) << "grad_a";
    EXPECT_TRUE(problem::matches(p.grad_b, g.b)) << "grad_b";
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

TYPED_TEST(chunked_attention_rotary, gradients_are_optional) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  rotary_problem<B, float> p(2, 24, 9, {}, 4);
  using args = typename rotary_problem<B, float>::op::rotary_backward_args;
  expect_each_is_optional(
      p.backward(), [](args const& a) { rotary_problem<B, float>::run_backward(a, 1); },
      std::pair{&args::grad_a, &p.grad_a}, std::pair{&args::grad_b, &p.grad_b});
}

TYPED_TEST(chunked_attention_rotary, gradient_is_the_derivative) {
  using B = TypeParam;
  TCNCA_TEST_NEEDS(B);
  rotary_problem<B, double> p(2, 16, 12, {}, 3);
  p.run(1);
  auto const weights = p.grad_bias.values();
  use_arithmetic_of<double>();
  reference::sum<bounded> rounding;
  add_loss(rounding, weights, reference::attention::rotary<bounded>(2, 16, 12, p.a.values(), p.b.values()));
  gradient_check check;
  check.add("a", p.a, p.grad_a), check.add("b", p.b, p.grad_b);
  auto const loss = [&] {
    p.run(1);
    reference::sum<double> all;
    add_loss(all, weights, p.bias.values());
    return all.get();
  };
  check.run(loss, rounding.get().e);
}

}  // namespace
}  // namespace tcnca::testing
