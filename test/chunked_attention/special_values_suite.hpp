// Chunked attention with special values: queries without a valid key, arbitrary values in masked elements, and scores
// that are huge, infinite or NaN.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {
namespace {

template <class S>
struct chunked_attention_special : ::testing::Test {
  static attention_extents extents() {
    return {.batch = 3,
            .heads = 2,
            .length = 68,
            .key_dim = 16,
            .value_dim = 24,
            .chunk = 21,
            .dropout = S::shape.dropout ? 0.3 : 0};
  }
  static void run(attention_problem<S>& problem) {
    problem.clear();
    problem.run_forward(1);
    problem.run_backward(1);
  }
  /// A row of a sequence's tensor.
  template <class E>
  static std::vector<double> row(tensor<E, 4> const& t, index_t b, index_t h, index_t i) {
    index_t const dim = t.view().extent[3];
    std::vector<double> r;
    for (index_t d = 0; d < dim; d++)
      r.push_back(to_double(*t.at(((b * t.view().extent[1] + h) * t.view().extent[2] + i) * dim + d)));
    return r;
  }
  template <class E>
  static void set_row(tensor<E, 4>& t, std::vector<double>& values, index_t b, index_t h, index_t i, double x) {
    index_t const dim = t.view().extent[3], at = ((b * t.view().extent[1] + h) * t.view().extent[2] + i) * dim;
    for (index_t d = 0; d < dim; d++) *t.at(at + d) = from_double<E>(x), values[std::size_t(at + d)] = x;
  }
  static bool all(std::vector<double> const& r, auto f) { return std::all_of(r.begin(), r.end(), f); }
  static constexpr auto zero = [](double x) { return x == 0; };
  static constexpr auto nan = [](double x) { return std::isnan(x); };
};
TYPED_TEST_SUITE_P(chunked_attention_special);

TYPED_TEST_P(chunked_attention_special, a_row_without_a_key_is_zero) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  auto e = this->extents();
  e.position = S::causal ? e.chunk + 4 : e.chunk, e.lengths = true, e.state_out = S::causal;
  attention_problem<S> problem(e, 3);
  // No key; one key (in the state, if there is one); more keys than there are.
  problem.p.lengths = {0, e.chunk + 1, 1000};
  this->run(problem);
  problem.expect_forward();
  problem.expect_backward();
  for (index_t h = 0; h < e.heads; h++)
    for (index_t i = 0; i < e.length; i++) {
      auto const o0 = this->row(problem.o, 0, h, i), o1 = this->row(problem.o, 1, h, i);
      ASSERT_TRUE(this->all(o0, this->zero) && this->all(this->row(problem.grad_q, 0, h, i), this->zero)) << i;
      if (e.position + i >= 2 * e.chunk) {
        ASSERT_TRUE(this->all(o1, this->zero)) << i;
      } else if (S::softmax && !S::shape.dropout) {  // the weight of a single key is 1
        ASSERT_EQ(o1, S::causal ? this->row(problem.values_in, 1, h, 0) : this->row(problem.v, 1, h, 0)) << i;
      }
      if (S::softmax) {
        ASSERT_EQ(double(*problem.lse.view().at(0, h, i, 0)), -INFINITY);
        ASSERT_EQ(double(*problem.lse.view().at(0, h, i, 1)), 0);
      }
    }
}

// Keys and values that a row does not attend to change no bit of it.
TYPED_TEST_P(chunked_attention_special, masked_elements_have_no_effect) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  auto e = this->extents();
  e.lengths = true;
  for (double const garbage : {double(NAN), double(INFINITY)}) {
    SCOPED_TRACE(garbage);
    attention_problem<S> problem(e, 4);
    problem.p.lengths = {5, e.chunk + 7, 3 * e.chunk + 1};
    this->run(problem);
    auto const clean = problem.bits();
    for (index_t b = 0; b < e.batch; b++)
      for (index_t h = 0; h < e.heads; h++)
        for (index_t i = problem.p.lengths[std::size_t(b)]; i < e.length; i++) {
          this->set_row(problem.k, problem.p.k, b, h, i, garbage);
          this->set_row(problem.v, problem.p.v, b, h, i, garbage);
        }
    this->run(problem);
    auto const now = problem.bits();
    for (std::size_t i = 0; i < now.size(); i++) EXPECT_TRUE(now[i] == clean[i]) << "result " << i;
    if (!has(S::causal)) continue;
    // A later key and value: no bit changes in earlier rows of the chunk, nor in other chunks.
    attention_problem<S> later(e, 4);
    later.p.lengths = {1000, 1000, 1000};
    this->run(later);
    auto const o = later.o.values(), q = later.grad_q.values(), k = later.grad_k.values(), v = later.grad_v.values();
    index_t const spoilt = e.chunk + 9;
    this->set_row(later.k, later.p.k, 1, 1, spoilt, garbage), this->set_row(later.v, later.p.v, 1, 1, spoilt, garbage);
    this->run(later);
    auto const same = [&](tensor<typename S::T, 4> const& t, std::vector<double> const& before, index_t from,
                          char const* name) {
      index_t const dim = t.view().extent[3];
      for (index_t i = 0; i < t.count(); i++) {
        index_t const at = i / dim % e.length;
        if (i / dim / e.length == 3 && from <= at && at < 2 * e.chunk) continue;
        ASSERT_EQ(to_double(*t.at(i)), before[std::size_t(i)])
            << name << ", row " << i / dim / e.length << ", position " << at;
      }
    };
    same(later.o, o, spoilt, "o"), same(later.grad_q, q, spoilt, "grad_q"), same(later.grad_k, k, e.chunk, "grad_k"),
        same(later.grad_v, v, e.chunk, "grad_v");
  }
}

// A NaN or an infinity in a query makes its row NaN; in a key, the rows that attend to it; never another chunk.
TYPED_TEST_P(chunked_attention_special, nan_and_infinity_propagate) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::softmax)) return;
  auto const e = this->extents();
  index_t const i = e.chunk + 9;
  for (double const bad : {double(NAN), double(INFINITY)})
    for (bool const key : {false, true}) {
      SCOPED_TRACE(::testing::Message() << bad << (key ? " in a key" : " in a query"));
      attention_problem<S> problem(e, 5);
      this->run(problem);
      auto const clean = problem.o.values(), lse = problem.log_sums().values(), clean_k = problem.grad_k.values();
      this->set_row(key ? problem.k : problem.q, key ? problem.p.k : problem.p.q, 1, 0, i, bad);
      // The sum of infinities of both signs is NaN. One sign, so that each row has +infinity.
      if (!std::isnan(bad))
        for (auto* t : {&problem.q, &problem.k})
          for (index_t n = 0; n < t->count(); n++)
            *t->at(n) = from_double<typename S::T>(std::abs(to_double(*t->at(n))));
      this->run(problem);
      auto const log_sums = problem.log_sums();
      for (index_t b = 0; b < e.batch; b++)
        for (index_t h = 0; h < e.heads; h++)
          for (index_t at = 0; at < e.length; at++) {
            bool const sees = b == 1 && h == 0 && (key ? at / e.chunk == 1 && (!S::causal || at >= i) : at == i),
                       near = b == 1 && h == 0 && at / e.chunk == 1;
            auto const o = this->row(problem.o, b, h, at);
            std::size_t const from = std::size_t(((b * e.heads + h) * e.length + at));
            if (sees) {
              ASSERT_TRUE(this->all(o, this->nan)) << b << " " << h << " " << at;
              ASSERT_TRUE(std::isnan(*log_sums.at(index_t(from))) || *log_sums.at(index_t(from)) == INFINITY) << at;
              ASSERT_TRUE(this->all(this->row(problem.grad_q, b, h, at), this->nan)) << b << " " << h << " " << at;
            } else {
              ASSERT_TRUE(this->all(o, [](double x) { return std::isfinite(x); })) << b << " " << h << " " << at;
            }
            if (std::isnan(bad) && !sees) {
              ASSERT_EQ(*log_sums.at(index_t(from)), lse[from]) << b << " " << h << " " << at;
              for (std::size_t c = 0; c < o.size(); c++)
                ASSERT_EQ(o[c], clean[from * o.size() + c]) << b << " " << h << " " << at;
            }
            if (std::isnan(bad) && !near) {
              auto const k = this->row(problem.grad_k, b, h, at);
              for (std::size_t d = 0; d < k.size(); d++)
                ASSERT_EQ(k[d], clean_k[from * k.size() + d]) << b << " " << h << " " << at;
            }
          }
    }
}

TYPED_TEST_P(chunked_attention_special, biases_of_minus_infinity_mask) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::shape.bias)) return;
  auto const e = this->extents();
  for (int what = 0; what < 3; what++) {
    SCOPED_TRACE(what);
    attention_problem<S> problem(e, 6);
    auto const view = problem.bias.view();
    for (index_t h = 0; h < e.heads; h++)
      for (index_t m = 0; m < 2 * e.chunk - 1; m++) {
        index_t const apart = m - (e.chunk - 1);
        // Mask every third diagonal; all except keys five positions earlier; everything.
        if (what == 0 ? m % 3 == 0 : what == 1 ? apart != -5 : true) *view.at(h, m) = typename S::A(-INFINITY);
      }
    problem.p.bias = problem.bias.values();
    this->run(problem);
    problem.expect_forward();
    problem.expect_backward();
    if (what == 0) continue;
    for (index_t i = 0; i < e.length; i++) {
      if (what == 1 && i % e.chunk >= 5) continue;
      ASSERT_TRUE(this->all(this->row(problem.o, 1, 1, i), this->zero) &&
                  this->all(this->row(problem.grad_q, 1, 1, i), this->zero))
          << i;
    }
  }
}

// Biases that no pair of the chunk uses (those of later keys, if causal) may have any value.
TYPED_TEST_P(chunked_attention_special, unused_biases_have_no_effect) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::shape.bias && S::causal)) return;
  auto const e = this->extents();
  attention_problem<S> problem(e, 6);
  this->run(problem);
  auto const clean = problem.bits();
  for (index_t h = 0; h < e.heads; h++)
    for (index_t m = e.chunk; m < 2 * e.chunk - 1; m++) *problem.bias.view().at(h, m) = typename S::A(NAN);
  this->run(problem);
  EXPECT_TRUE(problem.bits() == clean);
  for (index_t h = 0; h < e.heads; h++)
    for (index_t m = e.chunk; m < 2 * e.chunk - 1; m++) ASSERT_EQ(*problem.grad_bias.view().at(h, m), 0);
}

TYPED_TEST_P(chunked_attention_special, huge_scores) {
  using S = TypeParam;
  using T = typename S::T;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::softmax)) return;
  // Scores of about 1e4, of about 6e4 (beyond fp16's largest number); and near the end of fp32.
  for (double const spread : {170.0, 400.0, 1e17}) {
    if (spread > 1e4 && format_of<T>.greatest < 100) continue;
    SCOPED_TRACE(spread);
    auto e = this->extents();
    e.spread = spread;
    attention_problem<S> problem(e, 7);
    problem.run_forward(1);
    problem.expect_forward();
    for (double const x : problem.o.values()) ASSERT_TRUE(std::isfinite(x));
    if (spread > 1e4) continue;
    problem.run_backward(1);
    problem.expect_backward();
    for (auto const* t : {&problem.grad_q, &problem.grad_k, &problem.grad_v})
      for (double const x : t->values()) ASSERT_TRUE(std::isfinite(x) || format_of<T>.greatest < 100);
  }
  if (!has(S::shape.bias)) return;
  for (double const shift : {-6e4, 6e4}) {  // of all scores: weights are invariant
    SCOPED_TRACE(shift);
    attention_problem<S> problem(this->extents(), 7);
    for (index_t i = 0; i < problem.bias.count(); i++) *problem.bias.at(i) += typename S::A(shift);
    problem.p.bias = problem.bias.values();
    this->run(problem);
    problem.expect_forward();
    problem.expect_backward();
  }
}

// Scores that rise or fall so steeply along the keys that the weights of all earlier blocks underflow.
TYPED_TEST_P(chunked_attention_special, scores_that_rise_from_block_to_block) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::softmax && S::shape.bias)) return;
  for (double const slope : {-2.0, 0.3, 2.0}) {
    SCOPED_TRACE(slope);
    auto e = this->extents();
    e.batch = 1, e.heads = 1, e.length = e.chunk = 500;
    attention_problem<S> problem(e, 10);
    for (index_t m = 0; m < 2 * e.chunk - 1; m++) *problem.bias.view().at(0, m) = typename S::A(slope * double(m));
    problem.p.bias = problem.bias.values();
    this->run(problem);
    problem.expect_forward();
    problem.expect_backward();
  }
}

// A constant bias changes no bit of a result, however large it is: both passes compute weights from the distance to the
// maximum.
TYPED_TEST_P(chunked_attention_special, constant_bias_has_no_effect) {
  using S = TypeParam;
  using T = typename S::T;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::softmax && S::shape.bias)) return;
  using limits = std::numeric_limits<A>;
  auto e = this->extents();
  e.dropout = 0;
  for (bool const ones :
       {false,
        true}) {  // values and gradients are random, or all 1: then the gradient of a value is the sum of its weights
    attention_problem<S> problem(e, 11);
    for (index_t i = 0; i < problem.q.count(); i++) *problem.q.at(i) = from_double<T>(problem.p.q[std::size_t(i)] = 0);
    for (index_t i = 0; ones && i < problem.v.count(); i++) {
      *problem.v.at(i) = from_double<T>(problem.p.v[std::size_t(i)] = 1);
      *problem.grad_o.at(i) = from_double<T>(problem.p.grad_o[std::size_t(i)] = 1);
    }
    std::vector<double> o, grad_q, grad_v, grad_bias;
    for (A const b :
         {A(0), A(1e3), A(1e7), A(-1e9), limits::lowest(), limits::lowest() / 2, limits::max() / 4, limits::max()}) {
      SCOPED_TRACE(::testing::Message() << "bias " << b << (ones ? ", ones" : ""));
      for (index_t i = 0; i < problem.bias.count(); i++) *problem.bias.at(i) = b;
      problem.p.bias = problem.bias.values();
      this->run(problem);
      if (b == A(0)) {
        problem.expect_forward();
        problem.expect_backward();
        o = problem.o.values(), grad_q = problem.grad_q.values(), grad_v = problem.grad_v.values(),
        grad_bias = problem.grad_bias.values();
      }
      ASSERT_TRUE(problem.o.values() == o && problem.grad_q.values() == grad_q && problem.grad_v.values() == grad_v);
      ASSERT_TRUE(problem.grad_bias.values() == grad_bias);
      for (index_t h = 0; h < e.heads; h++)
        for (index_t t = 0; t < e.length; t++) {
          index_t const keys = S::causal ? t % e.chunk + 1 : std::min(e.chunk, e.length - t / e.chunk * e.chunk);
          ASSERT_EQ(*problem.lse.view().at(2, h, t, 0), b) << t;
          ASSERT_NEAR(double(*problem.lse.view().at(2, h, t, 1)), std::log(double(keys)), 1e-6) << t;
          double sum = 0;  // of the weights of key t
          for (index_t i = S::causal ? t % e.chunk : 0; i < std::min(e.chunk, e.length - t / e.chunk * e.chunk); i++)
            sum += 1 / double(S::causal ? i + 1 : keys);
          if (!ones) continue;
          for (double const x : this->row(problem.grad_v, 2, h, t))
            ASSERT_NEAR(x, sum, sum * (std::is_same_v<T, A> ? 4e-6 : std::ldexp(3, -format_of<T>.digits))) << t;
        }
    }
  }
}

// Masks as frameworks write them, -1e9 or the lowest number: the same bits as -infinity, if a query has another key.
TYPED_TEST_P(chunked_attention_special, very_low_biases_mask) {
  using S = TypeParam;
  using A = typename S::A;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::softmax && S::shape.bias)) return;
  auto const e = this->extents();
  attention_problem<S> problem(e, 12);
  std::vector<std::vector<unsigned char>> masked;
  for (A const low : {A(-INFINITY), A(-1e9), std::numeric_limits<A>::lowest()}) {
    SCOPED_TRACE(low);
    for (index_t h = 0; h < e.heads; h++)
      for (index_t apart = 1 - e.chunk; apart < e.chunk; apart++)
        if (apart % 3 != 0) *problem.bias.view().at(h, e.chunk - 1 + apart) = low;
    problem.p.bias = problem.bias.values();
    this->run(problem);
    problem.expect_forward();
    problem.expect_backward();
    if (masked.empty()) masked = problem.bits();
    EXPECT_TRUE(problem.bits() == masked);
  }
}

// A scale that rounds to 0 in the arithmetic is not the default scale.
TYPED_TEST_P(chunked_attention_special, scale_that_underflows) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  auto e = this->extents();
  e.scale = 1e-60;
  attention_problem<S> problem(e, 9);
  this->run(problem);
  problem.expect_forward();
  problem.expect_backward();
}

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_special, a_row_without_a_key_is_zero, masked_elements_have_no_effect,
                            nan_and_infinity_propagate, biases_of_minus_infinity_mask, unused_biases_have_no_effect,
                            huge_scores, scores_that_rise_from_block_to_block, constant_bias_has_no_effect,
                            very_low_biases_mask, scale_that_underflows);

}  // namespace
}  // namespace tcnca::testing
