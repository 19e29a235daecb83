// Operations of a warp, on fibers and on a CUDA device: products with a separate addend, loads and stores of matrices,
// transposition in registers, words in shared memory, groups of asynchronous copies.
#include <tcnca/block/mma.hpp>
#include <tcnca/launch/launch.hpp>

#include "support/backend.hpp"
#include "support/tensor.hpp"

namespace tcnca::testing {

constexpr int rows = 32, columns = 8, count = rows * columns;

struct warp_params {
  bf16 const* in;    // 32 x 8, small integers
  bf16* copied;      // by load_matrices, store_matrices (sm_90) or words
  bf16* transposed;  // each 8 x 8 block transposed: by ldmatrix.trans and words
  bf16* moved;       // the same by movmatrix
  bf16* two;         // the first two blocks, transposed
  float* product16;  // 1 + a a': a the first 16 x 16 of in's rows as [16][16], its columns 0..7
  float* product8;   // 1 + a b: a the first 16 rows of in, b the last 8
};

/// Rows of 8 elements, 16 bytes, in order: free of bank conflicts for 8 neighbouring rows.
template <class Group>
struct warp_agent {
  using A = float;
  using group_type = Group;
  using params_type = warp_params;
  using warp_type = warp_of<Group>;
  using address_type = typename warp_type::address_type;
  static constexpr index_t items(params_type const&) { return 1; }
  static constexpr group_memory memory(params_type const&) { return {.shared_memory_bytes = 2 * count * 2}; }

  Group group;
  params_type const& p;
  address_type in, out;
  warp_type warp;
  TCNCA_HOST_DEVICE warp_agent(Group g, params_type const& params, A* shared, A*)
      : group(g),
        p(params),
        in(warp_type::address(shared)),
        out(warp_type::address(reinterpret_cast<char*>(shared) + count * 2)),
        warp{} {}

  TCNCA_HOST_DEVICE void show(bf16* to) const {
    group.sync();
    uint32 v[4];
    warp.load_shared(v, out + address_type(16 * group.rank()));
    for (int i = 0; i < 8; i++) to[8 * group.rank() + i] = bf16{uint16(v[i / 2] >> (i % 2 * 16))};
    group.sync();
  }
  TCNCA_HOST_DEVICE void words(uint32 const (&r)[4]) const {  // as store_matrices
    for (int m = 0; m < 4; m++) {
      address_type const to = out + address_type(128 * m + 16 * (group.rank() / 4) + 4 * (group.rank() % 4));
      if (m % 2 == 0) {
        warp.store_shared(to, {r[m]});
      } else {
        warp.store_shared_16(to, uint16(r[m]));
        warp.store_shared_16(to + 2, uint16(r[m] >> 16));
      }
    }
  }

  TCNCA_HOST_DEVICE void operator()(index_t) const {
    int const lane = group.rank();
    address_type const row = address_type(16 * lane);
    // Two groups of copies; the second one arrives at the second wait only.
    warp.copy_16(in + row, p.in + 8 * lane, lane < 16);
    warp.commit();
    warp.copy_16(in + row, p.in + 8 * lane, true);
    warp.commit();
    warp.template wait<1>();
    warp.wait();
    group.sync();
    uint32 a[4], t[4];
    warp.load_matrices(a, in + row);
    if constexpr (warp_type::stores_matrices) {
      warp.store_matrices(out + row, a);
    } else {
      words(a);
    }
    show(p.copied);
    warp.load_matrices_transposed(t, in + row);
    words(t);
    show(p.transposed);
    uint32 moved[4];
    for (int i = 0; i < 4; i++) moved[i] = warp.transpose_matrix(a[i]);
    if constexpr (warp_type::stores_matrices) {
      warp.store_matrices_transposed(out + row, a);  // stores the transposes
      show(p.moved);
      for (int i = 0; i < 4; i++) moved[i] = moved[i] == t[i] ? moved[i] : 0;
    }
    words(moved);
    show(p.moved);
    uint32 two[4] = {};
    warp.load_two_matrices_transposed(two[0], two[1], in + row);
    warp.load_two_matrices(two[2], two[3], in + row);
    words(two);
    show(p.two);

    float const one[4] = {1, 1, 1, 1};
    float c[4], d[4];
    // a: rows 0 to 15 and 16 to 31 as the left and the right 8 columns; b: the transposes of rows 0 to 7 and 16 to 23.
    warp.template multiply<bf16>(c, one, a[0], a[1], a[2], a[3], a[0], a[2]);
    warp.template multiply<bf16>(d, one, a[0], a[1], t[3]);
    for (int i = 0; i < 4; i++) {
      auto const at = mma_fragment::c(lane, i);
      p.product16[at.row * 8 + at.column] = c[i], p.product8[at.row * 8 + at.column] = d[i];
    }
  }
};

namespace {

template <class Backend>
struct warp : ::testing::Test {};
TYPED_TEST_SUITE(warp, list_of<fiber_or_cuda>::type, backend_name);

TYPED_TEST(warp, operations) {
  using backend = TypeParam;
  TCNCA_TEST_NEEDS(backend);
  random_bits r{7};
  tensor<bf16, 2> in({rows, columns}, {0, 1});
  for (index_t i = 0; i < count; i++) *in.at(i) = from_double<bf16>(between(r, -8, 8));
  tensor<bf16, 2> copied({rows, columns}, {0, 1}), transposed({rows, columns}, {0, 1}), moved({rows, columns}, {0, 1}),
      two({rows, columns}, {0, 1});
  tensor<float, 2> product16({16, 8}, {0, 1}), product8({16, 8}, {0, 1});
  using agent = warp_agent<typename executor_traits<typename backend::executor>::template group<32>>;
  status const s = launch<agent>(backend::make(3), {.in = in.view().data,
                                                    .copied = copied.view().data,
                                                    .transposed = transposed.view().data,
                                                    .moved = moved.view().data,
                                                    .two = two.view().data,
                                                    .product16 = product16.view().data,
                                                    .product8 = product8.view().data});
  ASSERT_TRUE(s.ok()) << to_string(s);
  backend::finish();
  auto const x = in.values(), same = copied.values(), t = transposed.values(), m = moved.values(), b = two.values(),
             c16 = product16.values(), c8 = product8.values();
  auto const at = [&](int i, int j) { return x[std::size_t(i * columns + j)]; };
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < columns; j++) {
      auto const here = std::size_t(i * columns + j);
      double const mirrored = at(i / 8 * 8 + j, i % 8);
      EXPECT_EQ(same[here], at(i, j));
      EXPECT_EQ(t[here], mirrored);
      EXPECT_EQ(m[here], mirrored);
      EXPECT_EQ(b[here], i < 16 ? mirrored : at(i - 16, j));
      if (i >= 16) continue;
      double sum16 = 1, sum8 = 1;
      for (int k = 0; k < 8; k++) {
        sum16 += at(i, k) * at(j, k) + at(16 + i, k) * at(16 + j, k);
        sum8 += at(i, k) * at(24 + k, j);
      }
      EXPECT_EQ(c16[here], sum16);
      EXPECT_EQ(c8[here], sum8);
    }
}

}  // namespace
}  // namespace tcnca::testing
