// The backward pass by wgmma of sm_90a: products of transposed operands (fibers), and the agents (CUDA; they are the
// default for 16-bit types there, so the other suites run them, too).
#include "cases.hpp"

namespace tcnca::testing {
namespace {

#if !defined(__CUDACC__)
struct product {
  bf16 const *a, *b;  // 64 x depth, depth x columns
  float* c;
};

/// c = a b by one warpgroup. AColumns: a is stored as its transpose; BRows: b is not.
template <class Group, bool AColumns, bool BRows, int Columns>
struct product_agent {
  using A = float;
  using group_type = Group;
  static constexpr int depth = 64;
  Group group;
  product const& p;
  bf16* memory_;
  warpgroup_of<Group> warpgroup{};

  product_agent(Group g, product const& given, A* shared, A*)
      : group(g), p(given), memory_(reinterpret_cast<bf16*>(shared)) {}

  void operator()(index_t) {
    bf16* const right = memory_ + 64 * depth;
    for (int i = group.rank(); i < 64 * depth; i += group.size()) {
      int const row = i / depth, k = i % depth;
      memory_[AColumns ? wgmma_tile::offset(depth, k, row) : wgmma_tile::offset(64, row, k)] = p.a[i];
    }
    for (int i = group.rank(); i < depth * Columns; i += group.size()) {
      int const k = i / Columns, column = i % Columns;
      right[BRows ? wgmma_tile::offset(depth, k, column) : wgmma_tile::offset(Columns, column, k)] = p.b[i];
    }
    warpgroup.fence_proxy_async();
    group.sync();
    float c[Columns / 8][4];
    warpgroup.fence();
    for (int k = 0; k < depth; k += 16) {
      uint32 const a = warpgroup.address(memory_), b = warpgroup.address(right);
      warpgroup.template multiply<bf16, AColumns, BRows>(
          c, AColumns ? wgmma_tile::of_columns(a, depth, k) : wgmma_tile::of_rows(a, 64, 0, k),
          BRows ? wgmma_tile::of_columns(b, depth, k) : wgmma_tile::of_rows(b, Columns, 0, k), k > 0);
    }
    warpgroup.wait(c);
    for (int n = 0; n < Columns / 8; n++)
      for (int i = 0; i < 4; i++) {
        auto const x = mma_fragment::c(group.rank() % 32, i);
        p.c[(group.rank() / 32 * 16 + x.row) * Columns + 8 * n + x.column] = c[n][i];
      }
  }
};

/// Whether the product of two matrices of small integers is exact.
template <bool AColumns, bool BRows, int Columns>
bool multiplies(std::uint64_t seed) {
  using agent = product_agent<fiber_group<128>, AColumns, BRows, Columns>;
  std::size_t const depth = agent::depth, columns = Columns;
  random_bits r{seed};
  std::vector<bf16> a(64 * depth), b(depth * columns);
  for (auto* m : {&a, &b})
    for (bf16& x : *m) x = from_double<bf16>(between(r, -8, 8));
  std::vector<float> c(64 * columns, NAN);
  product const p{a.data(), b.data(), c.data()};
  if (!executor_traits<fibers<>>::launch<agent>(fibers<>{seed}, p, 1, {(64 + columns) * depth * sizeof(bf16), 0}, {})
           .ok())
    return false;
  for (std::size_t i = 0; i < 64; i++)
    for (std::size_t j = 0; j < columns; j++) {
      double sum = 0;
      for (std::size_t k = 0; k < depth; k++) sum += to_double(a[i * depth + k]) * to_double(b[k * columns + j]);
      if (double(c[i * columns + j]) != sum) return false;
    }
  return true;
}

TEST(chunked_attention_wgmma_backward_fiber, products_of_transposed_operands) {
  for (std::uint64_t seed = 1; seed <= 3; seed++) {
    EXPECT_TRUE((multiplies<false, false, 128>(seed)));
    EXPECT_TRUE((multiplies<true, true, 64>(seed)));
    EXPECT_TRUE((multiplies<true, true, 256>(seed)));
    EXPECT_TRUE((multiplies<false, true, 128>(seed)));
    EXPECT_TRUE((multiplies<true, false, 64>(seed)));
  }
}

// A longer sequence never needs less memory for a chunk; chunks of few rows share a launch.
static_assert([] {
  using scratch = chunked_attention_wgmma_scratch;
  for (index_t rows = 1; rows < scratch::most_rows; rows++)
    if (scratch::of(rows + 1).chunk_bytes(2, true) < scratch::of(rows).chunk_bytes(2, true)) return false;
  return scratch::most_chunks(scratch::of(2048).chunk_bytes(2, false), 100) == 8 &&
         scratch::most_chunks(scratch::of(4096).chunk_bytes(2, true), 100) >= 1 &&
         scratch::most_chunks(scratch::of(128).chunk_bytes(2, true), 100) == 100;
}());

#else

template <class Element, class Case>
struct wgmma_subject : attention_subject<cuda_backend, Element, Case> {
  struct on_mma : attention_subject<cuda_backend, Element, Case> {
    using op = chunked_attention<Element, Case::shape, without_clusters<Element, Case::shape>>;
  };
  using dispatch = detail::chunked_attention_dispatch<Element, Case::shape,
                                                      default_chunked_attention_tuning<Element, Case::shape>, cuda>;
  static_assert(dispatch::agents::backward_clustered);
  static bool supported() {
    return executor_traits<cuda>::supports<typename dispatch::agents::scores_agent, typename dispatch::wgmma_params>(
        cuda{});
  }
  /// Workspace for one chunk at a time.
  static std::size_t least_bytes(typename wgmma_subject::op::backward_args const& a) {
    return dispatch::backward_workspace(cuda{}, dispatch::make_backward_params(a)).least;
  }
  /// Whether a call with this workspace is executed by wgmma.
  static bool by_wgmma(typename wgmma_subject::op::backward_args const& a, workspace scratch) {
    typename dispatch::wgmma_params p;
    return dispatch::make_wgmma_params(cuda{}, dispatch::make_backward_params(a), scratch, p);
  }
};

template <class S>
struct chunked_attention_wgmma_backward : ::testing::Test {
  static bool by_wgmma(attention_problem<S> const& problem) {
    bool result = false;
    run_with_workspace<typename S::backend>(S::op::backward_workspace(cuda{}, problem.backward()), [&](workspace w) {
      result = S::by_wgmma(problem.backward(), w);
      return status{};
    });
    return result;
  }
  static void run(attention_problem<S>& problem) {
    problem.clear();
    problem.run_forward(1);
    problem.run_backward(1);
  }
};
TYPED_TEST_SUITE_P(chunked_attention_wgmma_backward);

// Partial blocks; one and two groups; all widths of the products; chunks without keys; more items than groups. Within
// the bounds, and the same bits each time, with memory for one chunk, too.
TYPED_TEST_P(chunked_attention_wgmma_backward, matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (attention_extents e :
       {attention_extents{.length = 300, .key_dim = 128, .value_dim = 264, .chunk = 300},
        {.length = 450, .key_dim = 64, .value_dim = 328, .chunk = 450},
        {.length = 250, .key_dim = 200, .value_dim = 136, .chunk = 128},
        {.batch = 2, .length = 130, .key_dim = 72, .value_dim = 200, .chunk = 193, .lengths = true},
        {.batch = 2, .heads = 2, .length = 300, .key_dim = 24, .value_dim = 72, .chunk = 64, .lengths = true},
        {.batch = 3, .heads = 7, .length = 150, .key_dim = 16, .value_dim = 16, .chunk = 150, .heads_inside = true}}) {
    e.position = S::causal ? 2 * e.chunk : 0, e.dropout = S::shape.dropout ? 0.2 : 0;
    SCOPED_TRACE(e);
    attention_problem<S> problem(e, 11);
    ASSERT_EQ(this->by_wgmma(problem), S::supported());
    this->run(problem);
    problem.expect_backward();
    auto const first = problem.bits();
    this->run(problem);
    EXPECT_TRUE(problem.bits() == first);
    problem.clear();
    problem.run_forward(1);
    auto const args = problem.backward();
    run_with_workspace<typename S::backend>(S::least_bytes(args),
                                            [&](workspace w) { return S::op::backward(cuda{}, args, w); });
    EXPECT_TRUE(problem.bits() == first);
    if (this->HasFailure()) return;
  }
}

// Calls that tensor maps, the chunk or the state do not permit are executed by the mma agents.
TYPED_TEST_P(chunked_attention_wgmma_backward, other_calls_use_the_mma_agents) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_extents const sizes{
      .batch = 2, .length = 90, .key_dim = 24, .value_dim = 40, .chunk = 64, .dropout = S::shape.dropout ? 0.2 : 0};
  attention_extents misaligned = sizes, odd = sizes, state = sizes;
  misaligned.where = {3, 1}, odd.chunk = 50, state.state_out = true;
  for (auto const& e : {misaligned, odd, state}) {
    if (e.state_out && !S::causal) continue;
    SCOPED_TRACE(e);
    attention_problem<S> problem(e, 3);
    EXPECT_FALSE(this->by_wgmma(problem));
    this->run(problem);
    problem.expect_backward();
    attention_problem<typename S::on_mma> other(e, 3);
    other.run_forward(1);
    other.run_backward(1);
    EXPECT_TRUE(problem.bits() == other.bits());
  }
}

TYPED_TEST_P(chunked_attention_wgmma_backward, gradients_are_optional) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_problem<S> problem(
      {.heads = 2, .length = 150, .key_dim = 16, .value_dim = 264, .chunk = 150, .dropout = S::shape.dropout ? 0.2 : 0},
      7);
  ASSERT_EQ(this->by_wgmma(problem), S::supported());
  problem.run_forward(1);
  problem.expect_optional_gradients(problem.backward(), problem.grad_keys_in, problem.grad_values_in);
}

// An infinite or NaN element changes no bit of rows that do not depend on it.
TYPED_TEST_P(chunked_attention_wgmma_backward, special_values_change_only_rows_that_attend) {
  using S = TypeParam;
  using T = typename S::T;
  TCNCA_TEST_NEEDS(S::backend);
  if (!has(S::causal)) return;
  attention_extents const e{.length = 200, .key_dim = 16, .value_dim = 136, .chunk = 200};
  attention_problem<S> problem(e, 5);
  this->run(problem);
  auto const clean_q = problem.grad_q.values(), clean_k = problem.grad_k.values(), clean_v = problem.grad_v.values();
  auto const same = [&](tensor<T, 4> const& t, std::vector<double> const& clean, index_t first, index_t last,
                        index_t dim) {
    auto const now = t.values();
    return std::equal(now.begin() + first * dim, now.begin() + last * dim, clean.begin() + first * dim);
  };
  for (double const bad : {double(NAN), -double(INFINITY)})
    for (index_t const spoilt : {0, 37, 63, 64, 127, 128, 199})
      for (int what = 0; what < 3; what++) {
        SCOPED_TRACE(::testing::Message() << bad << ", tensor " << what << ", position " << spoilt);
        auto& t = what == 0 ? problem.grad_o : what == 1 ? problem.q : problem.k;
        index_t const at = spoilt * (what == 0 ? e.value_dim : e.key_dim) + 3;
        T const before = *t.at(at);
        *t.at(at) = from_double<T>(bad);
        this->run(problem);
        *t.at(at) = before;
        ASSERT_TRUE(same(problem.grad_q, clean_q, 0, spoilt, e.key_dim));
        if (what == 2) continue;
        ASSERT_TRUE(same(problem.grad_q, clean_q, spoilt + 1, e.length, e.key_dim));
        ASSERT_TRUE(same(problem.grad_k, clean_k, spoilt + 1, e.length, e.key_dim));
        ASSERT_TRUE(same(problem.grad_v, clean_v, spoilt + 1, e.length, e.value_dim));
        if (what == 1) continue;
        for (index_t j = 0; j <= spoilt; j++)
          for (index_t c = 0; c < e.value_dim; c++) {
            double const x = to_double(*problem.grad_v.at(j * e.value_dim + c));
            ASSERT_TRUE(c == 3 ? !std::isfinite(x) : x == clean_v[std::size_t(j * e.value_dim + c)]) << j << " " << c;
          }
      }
}

// Keys and values that are not valid change no bit.
TYPED_TEST_P(chunked_attention_wgmma_backward, padding_may_hold_any_values) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_extents const e{
      .length = 180, .key_dim = 72, .value_dim = 24, .chunk = 180, .dropout = S::shape.dropout ? 0.2 : 0};
  for (index_t const length : {0, 1, 64, 100, 150}) {
    SCOPED_TRACE(length);
    attention_problem<S> problem(e, 6);
    problem.p.lengths = {length};
    this->run(problem);
    problem.expect_backward();
    auto const clean = problem.bits();
    for (index_t i = length * e.key_dim; i < problem.k.count(); i++) *problem.k.at(i) = from_double<typename S::T>(NAN);
    for (index_t i = length * e.value_dim; i < problem.v.count(); i++)
      *problem.v.at(i) = from_double<typename S::T>(INFINITY);
    this->run(problem);
    EXPECT_TRUE(problem.bits() == clean);
  }
}

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_wgmma_backward, matches_the_reference, other_calls_use_the_mma_agents,
                            gradients_are_optional, special_values_change_only_rows_that_attend,
                            padding_may_hold_any_values);
using wgmma_types = ::testing::Types<wgmma_subject<bf16, softmax_causal_bias_dropout>, wgmma_subject<fp16, laplace_bias>
#if !defined(TCNCA_TEST_FEW)
                                     ,
                                     wgmma_subject<fp16, softmax_plain>, wgmma_subject<fp16, laplace_causal_bias>,
                                     wgmma_subject<bf16, relu2_causal>
#endif
                                     >;
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, chunked_attention_wgmma_backward, wgmma_types, subject_name);

#endif

}  // namespace
}  // namespace tcnca::testing
