// The forward pass for clusters of sm_90a: the layout of wgmma's operands in shared memory (fibers), and the agent, in
// the suite of all agents.
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

#if !defined(__CUDACC__)
enum class fault { none, straight_rows, exchanged_offsets, missing_fence, divergence };

struct product {
  bf16 const *a, *b;  // 64 x depth; depth x 256, or its transpose's 64 rows
  bool columns;
  float* c;
};

/// c = a b by one warpgroup, from panels in shared memory (two of `a`, four or two of b), with an optional fault.
template <class Group, fault Fault>
struct product_agent {
  using A = float;
  using group_type = Group;
  static constexpr int depth = 128;
  Group group;
  product const& p;
  bf16* shared_memory_begin;
  warpgroup_of<Group> warpgroup{};

  product_agent(Group g, product const& given, A* shared_memory, A*)
      : group(g), p(given), shared_memory_begin(reinterpret_cast<bf16*>(shared_memory)) {}

  static int offset(int height, int row, int column) {
    return Fault == fault::straight_rows ? (column / 64 * height + row) * 64 + column % 64
                                         : wgmma_tile::offset(height, row, column);
  }
  void store_panel(bf16* to, bf16 const* from, int height, int width) const {
    for (int i = group.rank(); i < height * width; i += group.size())
      to[offset(height, i / width, i % width)] = from[i];
  }
  void operator()(index_t) {
    bf16* const b = shared_memory_begin + 64 * depth;
    store_panel(shared_memory_begin, p.a, 64, depth);
    if (p.columns) store_panel(b, p.b, depth, 256);
    else store_panel(b, p.b, 64, depth);
    warpgroup.fence_proxy_async();
    group.sync();
    if (p.columns) {
      float c[32][4] = {};
      multiply(c, [&](int k) {
        uint32 const at = warpgroup.address(b);
        return Fault == fault::exchanged_offsets ? wgmma_tile::descriptor(at + uint32(k) * 128, 1024, depth * 128)
                                                 : wgmma_tile::of_columns(at, depth, k);
      });
    } else {
      float c[8][4];
      multiply(c, [&](int k) { return wgmma_tile::of_rows(warpgroup.address(b), 64, 0, k); });
    }
  }
  template <int Tiles, class Right>
  void multiply(float (&c)[Tiles][4], Right right) {
    int const rank = group.rank();
    if (Fault != fault::missing_fence) warpgroup.fence();
    for (int k = 0; k < depth; k += 16) {
      uint64 const left = wgmma_tile::of_rows(warpgroup.address(shared_memory_begin), 64, 0,
                                              k + (Fault == fault::divergence && k > 0 && rank == 77 ? -16 : 0));
      if constexpr (Tiles == 32) {
        warpgroup.template multiply_columns<bf16>(c, left, right(k));
      } else {
        warpgroup.template multiply_rows<bf16>(c, left, right(k), k > 0);
      }
    }
    warpgroup.wait(c);
    for (int n = 0; n < Tiles; n++)
      for (int i = 0; i < 4; i++) {
        auto const x = mma_fragment::c(rank % 32, i);
        p.c[(rank / 32 * 16 + x.row) * 8 * Tiles + 8 * n + x.column] = c[n][i];
      }
  }
};

/// Whether the launch succeeds and gives the product of two matrices of small integers, which is exact.
template <fault Fault>
std::pair<bool, bool> multiplies(bool columns, std::uint64_t seed) {
  using agent = product_agent<fiber_group<128>, Fault>;
  std::size_t const depth = agent::depth, width = columns ? 256 : 64;
  random_bits r{seed};
  std::vector<bf16> a(64 * depth), b(depth * width);
  for (auto* m : {&a, &b})
    for (bf16& x : *m) x = from_double<bf16>(between(r, -8, 8));
  std::vector<float> c(64 * width, NAN);
  product const p{a.data(), b.data(), columns, c.data()};
  bool const ok =
      executor_traits<fibers<>>::launch<agent>(fibers<>{seed}, p, 1, {(64 + width) * depth * sizeof(bf16), 0}, {}).ok();
  bool same = true;
  for (std::size_t i = 0; i < 64; i++)
    for (std::size_t j = 0; j < width; j++) {
      double sum = 0;
      for (std::size_t k = 0; k < depth; k++)
        sum += to_double(a[i * depth + k]) * to_double(b[columns ? k * width + j : j * depth + k]);
      same = same && double(c[i * width + j]) == sum;
    }
  return {ok, same};
}

TEST(chunked_attention_wgmma_fiber, a_product_of_matrices) {
  for (std::uint64_t seed = 1; seed <= 5; seed++)
    for (bool const columns : {false, true}) EXPECT_EQ(multiplies<fault::none>(columns, seed), std::pair(true, true));
}
TEST(chunked_attention_wgmma_fiber, faults_are_detected) {
  for (bool const columns : {false, true}) {
    EXPECT_FALSE(multiplies<fault::straight_rows>(columns, 1).second);
    EXPECT_FALSE(multiplies<fault::missing_fence>(columns, 1).first);
    EXPECT_FALSE(multiplies<fault::divergence>(columns, 1).first);
  }
  EXPECT_FALSE(multiplies<fault::exchanged_offsets>(true, 1).second);
  EXPECT_EQ(multiplies<fault::none>(true, 1), std::pair(true, true));
}

#endif

template <class Backend, class T, class Case, int Groups>
struct cluster_subject : attention_subject<Backend, T, Case> {
  using tuning = clustered_chunked_attention_tuning<default_chunked_attention_tuning<T, Case::shape>, Groups>;
  using op = chunked_attention<T, Case::shape, tuning>;
  using on_mma = attention_subject<Backend, T, Case>;
  static std::string name() { return attention_subject<Backend, T, Case>::name() + "_" + std::to_string(Groups); }
  using agents = detail::tuned_chunked_attention<T, Case::shape, tuning, typename Backend::executor>;
  static_assert(agents::clustered);
  static_assert(!detail::tuned_chunked_attention<T, Case::shape, default_chunked_attention_tuning<T, Case::shape>,
                                                 typename Backend::executor>::clustered,
                "not the default");
  static bool supported() {
    using agent = typename agents::cluster_agent;
    return executor_traits<typename Backend::executor>::template supports<agent, typename agent::params_type>(
        Backend::make(1));
  }
};

struct softmax_causal {
  static constexpr char const* name = "softmax_causal";
  static constexpr chunked_attention_shape shape{.causal = true};
};
struct laplace_bias {
  static constexpr char const* name = "laplace_bias";
  static constexpr chunked_attention_shape shape{.function = attention_function::laplace, .bias = true};
};

template <class S>
struct chunked_attention_wgmma : ::testing::Test {};
TYPED_TEST_SUITE_P(chunked_attention_wgmma);

// Partial blocks and iterations, columns beyond the last group's, more than one cluster, keys of all widths, rows of
// any alignment: within the bounds, and the same bits for every order of the fibers.
TYPED_TEST_P(chunked_attention_wgmma, wide_and_long) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (bool const odd : {false, true})
    for (attention_extents e : {attention_extents{.length = 300, .key_dim = 128, .value_dim = 264, .chunk = 300},
                                {.length = 150, .key_dim = 256, .value_dim = 72, .chunk = 131},
                                {.length = 70, .key_dim = 200, .value_dim = 1032, .chunk = 70},
                                {.length = 130, .key_dim = 72, .value_dim = 512, .chunk = 193}}) {
      e.position = S::causal ? e.chunk / 3 : 0, e.state_out = S::causal, e.dropout = S::shape.dropout ? 0.2 : 0;
      if (odd) e.where = {3, 1};
      SCOPED_TRACE(e);
      attention_problem<S> problem(e, 11);
      problem.run_forward(1);
      problem.expect_forward();
      auto const first = problem.bits();
      for (std::uint64_t seed = 2; seed < 4; seed++) {
        problem.clear();
        problem.run_forward(seed);
        EXPECT_TRUE(problem.bits() == first);
      }
      if (this->HasFailure()) return;
    }
}

// Against the mma agent: both round weights to T, so they differ by the rounding of weights and of sums.
TYPED_TEST_P(chunked_attention_wgmma, agrees_with_the_mma_agent) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_extents const e{.batch = 1,
                            .heads = 2,
                            .length = 200,
                            .key_dim = 64,
                            .value_dim = 320,
                            .chunk = 200,
                            .dropout = S::shape.dropout ? 0.3 : 0};
  attention_problem<S> problem(e, 3);
  problem.run_forward(1);
  auto const got = problem.o.values();
  attention_problem<typename S::on_mma> other(e, 3);
  other.run_forward(1);
  auto const expected = other.o.values();
  double most = 0;
  for (double x : expected) most = std::max(most, std::abs(x));
  for (std::size_t i = 0; i < got.size(); i++)
    ASSERT_NEAR(got[i], expected[i], 4 * std::ldexp(1, -format_of<typename S::T>.digits) * most);
}

// On the diagonal, an infinite or NaN value changes the rows that attend to it and no bit of others.
TYPED_TEST_P(chunked_attention_wgmma, special_values_change_only_rows_that_attend) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_extents const e{.length = 200, .key_dim = 16, .value_dim = 272, .chunk = 200};
  attention_problem<S> problem(e, 5);
  problem.run_forward(1);
  auto const clean = problem.o.values();
  for (double const bad : {double(NAN), -double(INFINITY)})
    for (index_t const spoilt : {0, 37, 127, 128, 199})
      for (index_t const column : {1, 264}) {
        *problem.v.at(spoilt * e.value_dim + column) = from_double<typename S::T>(bad);
        problem.clear();
        problem.run_forward(2);
        *problem.v.at(spoilt * e.value_dim + column) =
            from_double<typename S::T>(problem.p.v[std::size_t(spoilt * e.value_dim + column)]);
        for (index_t i = 0; i < e.length; i++)
          for (index_t c = 0; c < e.value_dim; c++) {
            double const x = to_double(*problem.o.at(i * e.value_dim + c));
            if (c != column || (S::causal && i < spoilt)) {
              ASSERT_EQ(x, clean[std::size_t(i * e.value_dim + c)])
                  << "query " << i << ", column " << c << ", spoilt key " << spoilt << ", column " << column;
            } else {
              ASSERT_FALSE(std::isfinite(x))
                  << "query " << i << ", column " << c << ", spoilt key " << spoilt << ", column " << column;
            }
          }
      }
}

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_wgmma, wide_and_long, agrees_with_the_mma_agent,
                            special_values_change_only_rows_that_attend);

template <class B>
using types = ::testing::Types<cluster_subject<B, bf16, softmax_causal_bias_dropout, 2>,
                               cluster_subject<B, fp16, softmax_plain, 1>, cluster_subject<B, fp16, laplace_dropout, 4>,
                               cluster_subject<B, bf16, relu2_causal, 2>>;
template <class B>
using wide_types =
    ::testing::Types<cluster_subject<B, bf16, softmax_causal_bias_dropout, 2>,
                     cluster_subject<B, bf16, softmax_causal, 4>, cluster_subject<B, fp16, laplace_bias, 3>>;
#if defined(__CUDACC__)
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, chunked_attention_forward, types<cuda_backend>, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, chunked_attention_wgmma, wide_types<cuda_backend>, subject_name);

// A kernel without code is recognized by its maximum number of threads.
TEST(chunked_attention_wgmma_cuda, selected_on_compute_capability_9_0_only) {
  TCNCA_TEST_NEEDS(cuda_backend);
  using subject = cluster_subject<cuda_backend, bf16, softmax_plain, 2>;
  int device = 0;
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDevice(&device), cudaSuccess);
  ASSERT_EQ(cudaGetDeviceProperties(&properties, device), cudaSuccess);
  bool const hopper = properties.major == 9 && properties.minor == 0;
  EXPECT_EQ(subject::supported(), hopper);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);  // a kernel without code leaves no error
}
#else
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_forward, types<fiber_backend<>>, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_wgmma, wide_types<fiber_backend<>>, subject_name);
#endif

// The widest keys and the weights of four groups fit in shared memory.
static_assert(wgmma_tile::bytes(128, 256) + wgmma_tile::bytes(64, 256) + 4 * wgmma_tile::bytes(128, 64) +
                  2 * wgmma_tile::bytes(64, 256) + 192 * 4 + 4 * 128 * 4 + 8 * 4 <=
              227 * 1024);

}  // namespace
}  // namespace tcnca::testing
