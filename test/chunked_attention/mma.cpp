// The tensor-core passes of chunked attention, on fibers: fragments and their layout in memory, the faults that the
// emulated warp detects, and the agents at the edges of their blocks, stages and tiles. The generic agents run the same
// tests.
#include "backward_suite.hpp"
#include "forward_suite.hpp"

namespace tcnca::testing {
namespace {

enum class fault { none, straight_rows, exchanged_fragments, divergence, other_operation, missing_wait };

struct product {
  bf16 const *a, *b;  // 16 x 16, 16 x 16
  bool columns;       // b is given transposed
  float* c;           // 16 x 16
};

/// c = a b by one warp, from rows in shared memory, with an optional fault.
template <class Group, fault Fault>
struct product_agent {
  using A = float;
  using group_type = Group;
  static constexpr int row = 64;
  Group group;
  product const& p;
  bf16* shared_memory_begin;
  warp_of<Group> warp;

  product_agent(Group g, product const& given, A* shared_memory, A*)
      : group(g), p(given), shared_memory_begin(reinterpret_cast<bf16*>(shared_memory)) {}

  static int offset(int r, int c) {
    return r * row + (Fault == fault::straight_rows ? c : swizzled_rows::offset(r, c));
  }
  auto at(int first, tile_position x) const {
    return warp.address(shared_memory_begin + first * row + offset(x.row, x.column));
  }

  void operator()(index_t) {
    int const lane = group.rank();
    bf16 const* const from = lane < 16 ? p.a : p.b;
    for (int c = 0; c < 16; c += 8)
      warp.copy_16(warp.address(shared_memory_begin + lane / 16 * 16 * row + offset(lane % 16, c)),
                   from + lane % 16 * 16 + c, true);
    warp.commit();
    if (Fault != fault::missing_wait) warp.wait();
    group.sync();
    uint32 a[4], b[4];
    warp.load_matrices(a, at(0, mma_load::a(lane)));
    if (Fault == fault::divergence && lane == 5) return;
    if (Fault == fault::other_operation && lane == 5) (void)warp.any(true);
    else if (p.columns) warp.load_matrices(b, at(16, mma_load::b_of_columns(lane)));
    else warp.load_matrices_transposed(b, at(16, mma_load::b_of_rows(lane)));
    if (Fault == fault::exchanged_fragments) std::swap(a[1], a[2]);
    for (int half = 0; half < 2; half++) {
      float c[4] = {};
      warp.template multiply<bf16>(c, a, b[2 * half], b[2 * half + 1]);
      for (int i = 0; i < 4; i++) {
        auto const x = mma_fragment::c(lane, i);
        p.c[x.row * 16 + half * 8 + x.column] = c[i];
      }
    }
  }
};

/// Whether the launch succeeds and gives the product of two matrices of small integers, which is exact.
template <fault Fault>
std::pair<bool, bool> multiplies(bool columns, std::uint64_t seed) {
  random_bits r{seed};
  std::vector<double> a(256), b(256);
  for (auto* m : {&a, &b})
    for (double& x : *m) x = between(r, -8, 8);
  std::vector<bf16> a16(256), b16(256);
  for (std::size_t i = 0; i < 256; i++)
    a16[i] = from_double<bf16>(a[i]), b16[i] = from_double<bf16>(b[columns ? i % 16 * 16 + i / 16 : i]);
  // Accesses of 16 bytes need 16-byte alignment.
  tensor<bf16, 2> left({16, 16}, {0, 1}), right({16, 16}, {0, 1});
  for (index_t i = 0; i < 256; i++) *left.at(i) = a16[std::size_t(i)], *right.at(i) = b16[std::size_t(i)];
  std::vector<float> c(256, NAN);
  product const p{left.view().data, right.view().data, columns, c.data()};
  using agent = product_agent<fiber_group<32>, Fault>;
  bool const ok =
      executor_traits<fibers<>>::launch<agent>(fibers<>{seed}, p, 1, {32 * agent::row * sizeof(bf16), 0}, {}).ok();
  bool same = true;
  for (std::size_t i = 0; i < 16; i++)
    for (std::size_t j = 0; j < 16; j++) {
      double sum = 0;
      for (std::size_t k = 0; k < 16; k++) sum += a[i * 16 + k] * b[k * 16 + j];
      same = same && double(c[i * 16 + j]) == sum;
    }
  return {ok, same};
}

TEST(chunked_attention_mma_fiber, a_product_of_matrices) {
  for (std::uint64_t seed = 1; seed <= 5; seed++)
    for (bool const columns : {false, true}) EXPECT_EQ(multiplies<fault::none>(columns, seed), std::pair(true, true));
}
TEST(chunked_attention_mma_fiber, faults_are_detected) {
  EXPECT_FALSE(multiplies<fault::straight_rows>(true, 1).first) << "bank conflicts";
  EXPECT_FALSE(multiplies<fault::exchanged_fragments>(true, 1).second);
  EXPECT_FALSE(multiplies<fault::divergence>(true, 1).first);
  EXPECT_FALSE(multiplies<fault::other_operation>(true, 1).first);
  EXPECT_FALSE(multiplies<fault::missing_wait>(true, 1).second);
  EXPECT_EQ(multiplies<fault::none>(true, 1), std::pair(true, true));
}

// Each element of a tile is in one register of one lane, where ldmatrix stores it and mma expects it.
TEST(chunked_attention_mma_fiber, fragments_cover_their_tiles) {
  int a[16][16] = {}, b[16][8] = {}, c[16][8] = {};
  for (int lane = 0; lane < 32; lane++) {
    for (int r = 0; r < 4; r++)
      for (int e = 0; e < 2; e++) a[mma_fragment::a(lane, r).row][mma_fragment::a(lane, r).column + e]++;
    for (int r = 0; r < 2; r++)
      for (int e = 0; e < 2; e++) b[mma_fragment::b(lane, r).row + e][mma_fragment::b(lane, r).column]++;
    for (int i = 0; i < 4; i++) c[mma_fragment::c(lane, i).row][mma_fragment::c(lane, i).column]++;
    for (int r = 0; r < 4; r++) {
      // Register r of a lane comes from matrix r, whose rows lanes 8 r .. 8 r + 7 name: row lane / 4, columns 2 (lane %
      // 4) and the next.
      auto const of_a = mma_load::a(8 * r + lane / 4), of_columns = mma_load::b_of_columns(8 * r + lane / 4);
      EXPECT_EQ((tile_position{of_a.row, of_a.column + lane % 4 * 2}), mma_fragment::a(lane, r));
      auto const b_here = mma_fragment::b(lane, r % 2);  // of tile r / 2
      EXPECT_EQ((tile_position{of_columns.row, of_columns.column + lane % 4 * 2}),
                (tile_position{b_here.column + r / 2 * 8, b_here.row}));
      // Transposed: row 2 (lane % 4) and the next, column lane / 4.
      auto const of_rows = mma_load::b_of_rows(8 * r + lane % 4 * 2);
      EXPECT_EQ((tile_position{of_rows.row, of_rows.column + lane / 4}),
                (tile_position{b_here.row, b_here.column + r / 2 * 8}));
    }
    for (int tile = 0; tile < 2; tile++)  // two fragments c side by side are one of a
      for (int half = 0; half < 2; half++) {
        auto const x = mma_fragment::c(lane, 2 * half);
        EXPECT_EQ((tile_position{x.row, x.column + 8 * tile}), mma_fragment::a(lane, 2 * tile + half));
      }
  }
  for (int row = 0; row < 16; row++)
    for (int column = 0; column < 16; column++) {
      EXPECT_EQ(a[row][column], 1);
      if (column < 8) { EXPECT_EQ(b[row][column] + c[row][column], 2); }
    }
}

struct relu2_causal_bias_dropout {
  static constexpr char const* name = "relu2_causal_bias_dropout";
  static constexpr chunked_attention_shape shape{
      .function = attention_function::relu2, .causal = true, .bias = true, .dropout = true};
};

template <class T, chunked_attention_shape Shape>
struct generic_tuning : default_chunked_attention_tuning<T, Shape> {
  static constexpr target no_tensor_cores{70};
  static constexpr chunked_attention_policy forward(target) {
    return default_chunked_attention_tuning<T, Shape>::forward(no_tensor_cores);
  }
  static constexpr chunked_attention_policy backward(target) {
    return default_chunked_attention_tuning<T, Shape>::backward(no_tensor_cores);
  }
};
template <class Backend, class T, class Case>
struct generic_subject : attention_subject<Backend, T, Case> {
  using op = chunked_attention<T, Case::shape, generic_tuning<T, Case::shape>>;
  static std::string name() { return attention_subject<Backend, T, Case>::name() + "_generic"; }
};

template <class S>
struct chunked_attention_mma : ::testing::Test {};
TYPED_TEST_SUITE_P(chunked_attention_mma);

// Values wider than a tile, lengths beyond a stage; keys so wide that one stage fits; rows without 16-byte alignment.
TYPED_TEST_P(chunked_attention_mma, wide_and_long) {
  using S = TypeParam;
  for (bool const odd : {false, true})
    for (attention_extents e : {attention_extents{.length = 300, .key_dim = 128, .value_dim = 264, .chunk = 300},
                                {.length = 150, .key_dim = 256, .value_dim = 72, .chunk = 131},
                                {.length = 70, .key_dim = 200, .value_dim = 520, .chunk = 70},
                                {.length = 130, .key_dim = 72, .value_dim = 192, .chunk = 193}}) {
      e.position = S::causal ? e.chunk / 3 : 0, e.state_out = S::causal, e.dropout = S::shape.dropout ? 0.2 : 0;
      if (odd) e.where = {3, 1};
      SCOPED_TRACE(e);
      attention_problem<S> problem(e, 11);
      problem.run_forward(1);
      problem.expect_forward();
      problem.run_backward(1);
      problem.expect_backward();
      auto const first = problem.bits();
      problem.clear();
      problem.run_forward(2);
      problem.run_backward(2);
      EXPECT_TRUE(problem.bits() == first);
      if (this->HasFailure()) return;
    }
}

// On the diagonal, an infinite or NaN value changes the rows that attend to it and no bit of others.
TYPED_TEST_P(chunked_attention_mma, special_values_change_only_rows_that_attend) {
  using S = TypeParam;
  attention_extents const e{.length = 140, .key_dim = 16, .value_dim = 272, .chunk = 140};
  attention_problem<S> problem(e, 5);
  problem.run_forward(1);
  auto const clean = problem.o.values();
  for (double const bad : {double(NAN), double(INFINITY), -double(INFINITY)}) {
    for (index_t const spoilt : {0, 37, 79, 80, 128})
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
}

REGISTER_TYPED_TEST_SUITE_P(chunked_attention_mma, wide_and_long, special_values_change_only_rows_that_attend);

// Shapes that 16bit.cpp does not have.
#ifdef TCNCA_TEST_FEW
template <class B>
using subjects = ::testing::Types<attention_subject<B, fp16, softmax_causal>, attention_subject<B, bf16, laplace_bias>,
                                  attention_subject<B, bf16, relu2_causal_bias_dropout>>;
using wide_types = ::testing::Types<attention_subject<fiber_backend<>, bf16, softmax_causal_bias_dropout>>;
#else
template <class B>
using subjects = ::testing::Types<attention_subject<B, bf16, softmax_plain>, attention_subject<B, fp16, softmax_causal>,
                                  attention_subject<B, fp16, laplace_dropout>, attention_subject<B, bf16, laplace_bias>,
                                  attention_subject<B, bf16, relu2_causal_bias_dropout>>;
using wide_types = ::testing::Types<attention_subject<fiber_backend<>, bf16, softmax_causal_bias_dropout>,
                                    attention_subject<fiber_backend<>, fp16, laplace_bias>>;
#endif
using types = subjects<fiber_backend<>>;
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_forward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_backward, types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(fiber, chunked_attention_mma, wide_types, subject_name);
using generic_types = ::testing::Types<generic_subject<fiber_backend<>, bf16, softmax_causal>>;
INSTANTIATE_TYPED_TEST_SUITE_P(fiber_generic, chunked_attention_forward, generic_types, subject_name);
INSTANTIATE_TYPED_TEST_SUITE_P(fiber_generic, chunked_attention_backward, generic_types, subject_name);

// The agent that a policy selects.
template <class S>
using tuned =
    detail::tuned_chunked_attention<typename S::T, S::shape, default_chunked_attention_tuning<typename S::T, S::shape>,
                                    typename S::backend::executor>;
template <class S>
inline constexpr bool on_tensor_cores = tuned<S>::tensor_cores&& tuned<S>::backward_tensor_cores;
static_assert(on_tensor_cores<attention_subject<fiber_backend<>, bf16, softmax_plain>>);
static_assert(!on_tensor_cores<attention_subject<fiber_backend<>, float, softmax_plain>> &&
              !on_tensor_cores<attention_subject<cpu_backend, bf16, softmax_plain>>);
static_assert(!on_tensor_cores<attention_subject<fiber_backend<37>, bf16, softmax_plain>>,
              "a group of other size has no warps to share the queries out to");

// The gradient of a bias is a sum over many items: in fp32 it would lose digits.
TEST(chunked_attention_mma_biases, fiber_many_items) {
  using agents = tuned<attention_subject<fiber_backend<>, bf16, softmax_causal_bias>>;
  using agent = agents::grad_biases_agent;
  index_t const length = 20000;  // chunks of one position
  agent::params_type p{};
  p.in.q.extent[0] = p.in.q.extent[1] = 1, p.in.q.extent[2] = length, p.in.chunk = 1;
  std::vector<float> shares(std::size_t(agents::grad_queries_agent::bias_elements(p)), 0.1f);
  float sum = 0;
  p.bias_sums = shares.data(), p.grad_bias = contiguous(&sum, 1, 1);
  ASSERT_TRUE(executor_traits<fibers<>>::launch<agent>(fibers<>{1}, p, agent::items(p), {}, {}).ok());
  EXPECT_EQ(sum, float(double(length) * double(0.1f)));
}

}  // namespace
}  // namespace tcnca::testing
