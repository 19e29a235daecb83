// The forward pass for clusters of sm_90a: the layout of wgmma's operands in shared memory (fibers), and the agent
// (CUDA; it is the default for 16-bit types there, so the other suites run it, too).
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

#else

template <class Element, class Case>
struct cluster_subject : attention_subject<cuda_backend, Element, Case> {
  struct on_mma : attention_subject<cuda_backend, Element, Case> {
    using op = chunked_attention<Element, Case::shape, without_clusters<Element, Case::shape>>;
  };
  using dispatch = detail::chunked_attention_dispatch<Element, Case::shape,
                                                      default_chunked_attention_tuning<Element, Case::shape>, cuda>;
  using agent = typename dispatch::agents::cluster_agent;
  static_assert(dispatch::agents::clustered);
  static bool supported() { return executor_traits<cuda>::supports<agent, typename dispatch::cluster_params>(cuda{}); }
  /// Whether a call is executed by clusters.
  static bool clusters(typename cluster_subject::op::forward_args const& a) {
    typename dispatch::cluster_params p;
    return dispatch::make_cluster_params(cuda{}, dispatch::make_forward_params(a), p);
  }
};

template <class S>
struct chunked_attention_wgmma : ::testing::Test {};
TYPED_TEST_SUITE_P(chunked_attention_wgmma);

// Partial blocks and rounds; one to four columns of groups, columns without values; one and two rows; keys of all
// widths; more items than clusters, some without keys: within the bounds, and the same bits each time.
TYPED_TEST_P(chunked_attention_wgmma, matches_the_reference) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  for (attention_extents e :
       {attention_extents{.length = 300, .key_dim = 128, .value_dim = 264, .chunk = 300},
        {.length = 512, .key_dim = 64, .value_dim = 1024, .chunk = 512},
        {.length = 150, .key_dim = 256, .value_dim = 72, .chunk = 131},
        {.length = 70, .key_dim = 200, .value_dim = 1032, .chunk = 70},
        {.length = 130, .key_dim = 72, .value_dim = 512, .chunk = 193},
        {.batch = 2, .heads = 2, .length = 500, .key_dim = 24, .value_dim = 704, .chunk = 256, .lengths = true},
        {.batch = 5, .heads = 7, .length = 70, .key_dim = 16, .value_dim = 264, .chunk = 35, .heads_inside = true},
        {.batch = 3, .heads = 8, .length = 140, .key_dim = 16, .value_dim = 16, .chunk = 64, .lengths = true}}) {
    e.position = S::causal ? 2 * e.chunk : 0, e.state_out = S::causal, e.dropout = S::shape.dropout ? 0.2 : 0;
    SCOPED_TRACE(e);
    attention_problem<S> problem(e, 11);
    ASSERT_EQ(S::clusters(problem.forward()), S::supported());
    problem.run_forward(1);
    problem.expect_forward();
    auto const first = problem.bits();
    problem.clear();
    problem.run_forward(2);
    EXPECT_TRUE(problem.bits() == first);
    if (this->HasFailure()) return;
  }
}

// Calls that tensor maps or the state do not permit are executed by the mma agent.
TYPED_TEST_P(chunked_attention_wgmma, other_calls_use_the_mma_agent) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_extents const sizes{
      .batch = 2, .length = 90, .key_dim = 24, .value_dim = 40, .chunk = 50, .dropout = S::shape.dropout ? 0.2 : 0};
  attention_extents odd = sizes, state = sizes;
  odd.where = {3, 1};
  state.position = S::causal ? 7 : 0;
  for (auto const& e : {odd, state}) {
    if (e.where.padding == 0 && !S::causal) continue;
    SCOPED_TRACE(e);
    attention_problem<S> problem(e, 3);
    EXPECT_FALSE(S::clusters(problem.forward()));
    problem.run_forward(1);
    problem.expect_forward();
    attention_problem<typename S::on_mma> other(e, 3);
    other.run_forward(1);
    EXPECT_TRUE(problem.bits() == other.bits());
  }
}

// Inputs that are broadcast: keys shared by heads, a batch of one sequence.
TYPED_TEST_P(chunked_attention_wgmma, broadcasts_inputs) {
  using S = TypeParam;
  TCNCA_TEST_NEEDS(S::backend);
  attention_extents const e{.batch = 2,
                            .heads = 3,
                            .length = 140,
                            .key_dim = 64,
                            .value_dim = 320,
                            .chunk = 140,
                            .dropout = S::shape.dropout ? 0.3 : 0};
  attention_problem<S> problem(e, 3);
  auto args = problem.forward();
  args.k.stride[1] = 0, args.v.stride[1] = 0, args.q.stride[0] = 0;
  auto const run_into = [&](auto&& run) {
    problem.clear();
    run();
    return problem.o.values();
  };
  ASSERT_EQ(S::clusters(args), S::supported());
  auto const got = run_into([&] { problem.run_forward(args, 1); });
  typename S::on_mma::op::forward_args same;
  same.q = args.q, same.k = args.k, same.v = args.v, same.bias = args.bias, same.o = args.o, same.lse = args.lse,
  same.chunk = args.chunk, same.dropout = args.dropout, same.seed = args.seed, same.offset = args.offset;
  auto const expected = run_into([&] { attention_problem<typename S::on_mma>::run_forward(same, 1); });
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

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_wgmma, matches_the_reference, other_calls_use_the_mma_agent,
                            broadcasts_inputs, special_values_change_only_rows_that_attend);
using cluster_types =
    ::testing::Types<cluster_subject<bf16, softmax_causal_bias_dropout>, cluster_subject<fp16, laplace_bias>
#if !defined(TCNCA_TEST_FEW)
                     ,
                     cluster_subject<bf16, softmax_causal>, cluster_subject<fp16, softmax_plain>,
                     cluster_subject<bf16, relu2_causal>
#endif
                     >;
INSTANTIATE_TYPED_TEST_SUITE_P(cuda, chunked_attention_wgmma, cluster_types, subject_name);

// A kernel without code is recognized by its maximum number of threads.
TEST(chunked_attention_wgmma_cuda, selected_on_compute_capability_9_0_only) {
  TCNCA_TEST_NEEDS(cuda_backend);
  int device = 0;
  cudaDeviceProp properties;
  ASSERT_EQ(cudaGetDevice(&device), cudaSuccess);
  ASSERT_EQ(cudaGetDeviceProperties(&properties, device), cudaSuccess);
  bool const hopper = properties.major == 9 && properties.minor == 0;
  EXPECT_EQ((cluster_subject<bf16, softmax_plain>::supported()), hopper);
  EXPECT_EQ(cudaGetLastError(), cudaSuccess);  // a kernel without code leaves no error
}

#endif
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(chunked_attention_forward);

// The plan: few columns without values, and memory for four units of values at least.
static_assert([] {
  for (int key_dim = 16; key_dim <= 256; key_dim += 8)
    for (int value_dim = 16; value_dim <= 2048; value_dim += 8) {
      auto const p = chunked_attention_cluster_plan::of(key_dim, value_dim, 1000);
      if (p.value_stages < 4 || size_t(p.end()) > 227 * 1024 || p.rows * p.columns > 8) return false;
      if (p.value_tiles * p.columns * 256 < value_dim || p.value_tiles * (p.columns - 1) * 256 >= value_dim)
        return false;
    }
  return true;
}());

}  // namespace
}  // namespace tcnca::testing
