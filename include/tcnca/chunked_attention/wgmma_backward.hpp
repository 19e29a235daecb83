// The backward pass by wgmma of sm_90a: what its kernels share. Each product is computed once:
//
//   wgmma_scores     S = Q K^T and dP = dO V^T of each block of 128 queries x 128 keys; the weights P and the
//                    gradients dS of scores, rounded to T, go to the workspace
//   wgmma_products   dV = P^T dO, dK = dS^T Q, dQ = dS K; no two groups write one number
//   wgmma_diagonals  sums of dS along diagonals (biases), from the sums of each warp of wgmma_scores
//
// The workspace holds P and dS of some chunks; the kernels are launched once for each such set of chunks. Two groups, a
// cluster, work on neighbouring blocks of rows; what both multiply by, each loads half of for both.
#pragma once
#include "../arch/global_store.hpp"
#include "../block/pipeline.hpp"
#include "../block/wgmma.hpp"
#include "../core/workspace.hpp"
#include "mma_backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Sizes of the matrices in the workspace.
struct chunked_attention_wgmma_scratch {
  static constexpr int box = wgmma_tile::line;             // rows and columns of a bulk copy
  static constexpr index_t most_rows = 4096;               // of a chunk
  static constexpr size_t enough_bytes = size_t(1) << 27;  // 128 MB: eight chunks of 2048 rows, which fill a device

  // Sums of dS along the diagonals of 16 queries x 128 keys, by warps of blocks of 128 x 128.
  static constexpr int block = 128, warps = 8, diagonals = 144;

  int rows = 0;  // of a matrix, a multiple of the box; and columns

  static constexpr chunked_attention_wgmma_scratch of(index_t chunk_rows) {
    return {int(round_up(chunk_rows, index_t(box)))};
  }
  TCNCA_HOST_DEVICE constexpr index_t elements() const { return index_t(rows) * rows; }
  /// Where the sums of block (row, column) are.
  TCNCA_HOST_DEVICE constexpr index_t diagonals_at(index_t chunk, int row, int column) const {
    index_t const blocks = divide_up(rows, block);
    return ((chunk * blocks + row) * blocks + column) * (warps * diagonals);
  }
  constexpr size_t chunk_bytes(size_t element_bytes, bool biases) const {
    return detail::workspace_part(2 * size_t(elements()), element_bytes) +
           (biases ? detail::workspace_part(size_t(diagonals_at(1, 0, 0)), sizeof(float)) : 0);
  }
  /// How many chunks are processed at the same time, at most.
  static constexpr index_t most_chunks(size_t chunk_bytes, index_t chunks) {
    return max_of(index_t(1), min_of(chunks, index_t(enough_bytes / max_of(chunk_bytes, size_t(1)))));
  }
};

/// Parameters of these agents; the same for all groups.
template <element T>
struct chunked_attention_wgmma_backward_params {
  chunked_attention_backward_params<T> backward;
  chunked_attention_wgmma_scratch scratch;
  int groups = 1;                                // of a cluster: 1 or 2
  index_t first_chunk = 0, chunks = 0;           // those of the launch
  T *weights = nullptr, *derivatives = nullptr;  // [chunk of the launch][query][key]
  float* diagonals = nullptr;                    // biases: see diagonals_at
  // Of tiles of 64 columns x 64 rows.
  tensor_map q = {}, k = {}, v = {}, grad_o = {}, weight_tiles = {}, derivative_tiles = {};

  static constexpr int block = chunked_attention_wgmma_scratch::block;  // rows of a group
  TCNCA_HOST_DEVICE static constexpr index_t blocks(index_t rows) { return divide_up(rows, index_t(block)); }
  /// Two groups, unless many of their rows did not exist.
  static constexpr int groups_for(index_t rows) { return blocks(rows) % 2 == 0 || blocks(rows) > 8 ? 2 : 1; }
  TCNCA_HOST_DEVICE index_t blocks() const { return blocks(backward.in.rows()); }
  /// Blocks of the rows of a cluster.
  TCNCA_HOST_DEVICE index_t cluster_blocks() const { return divide_up(blocks(), index_t(groups)); }
};

#if defined(__CUDACC__)
namespace detail {

/// A group of these kernels: two warpgroups that compute, Consumers, with 64 rows each of a block of Br rows; and one
/// that loads. A ring of stages of StageBytes each lies between them.
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy,
          int StageBytes>
struct attention_wgmma_backward : attention_gradient_warps<Consumers, T, Shape, Policy, attention_side::queries> {
  using base = attention_gradient_warps<Consumers, T, Shape, Policy, attention_side::queries>;
  using typename base::A;
  using base::in, base::warp, base::chunk_, base::first_, base::Br, base::softmax;
  using group_type = Group;
  using params_type = chunked_attention_wgmma_backward_params<T>;
  static constexpr bool persistent = true;
  TCNCA_HOST_DEVICE static int cluster_size(params_type const& p) { return p.groups; }
  static_assert(Policy.valid_cluster() && Consumers::size() == Policy.threads &&
                    Group::size() == Policy.threads + wgmma_tile::threads,
                "tcnca::chunked_attention: a policy for clusters needs 256 threads, 128 queries, 64 keys and a "
                "value_tile of 256");
  static_assert(Policy.query_block == params_type::block);
  static constexpr int warpgroups = Consumers::size() / wgmma_tile::threads, box = wgmma_tile::line,
                       box_bytes = box * wgmma_tile::line_bytes, ring_bytes = 192 * 1024,
                       stages = ring_bytes / StageBytes;
  // Shared memory: the stages, numbers, for each warp 8 rows of 64 gradients of scores, barriers.
  static constexpr int numbers_at = ring_bytes, numbers_bytes = 2048, rows_at = numbers_at + numbers_bytes,
                       row_stride = box + 8, warp_bytes = 8 * row_stride * int(sizeof(A)),
                       barriers_at = rows_at + Consumers::size() / warp_size * warp_bytes,
                       end = barriers_at + ring_barriers::bytes(stages) + ring_barriers::bytes(2);
  static group_memory memory(params_type const&) { return {.shared_memory_bytes = size_t(end)}; }

  params_type const& all;
  char* shared_memory;
  uint32 address;  // its address
  ring_barriers ring, number_ring;
  cluster_of<Group, 1> cluster{};
  warpgroup_of<Group> warpgroup{};
  int const group_rank = cluster.rank();
  int const warpgroup_ = warp.uniform(this->rank() / wgmma_tile::threads), thread_ = this->rank() % wgmma_tile::threads,
            warp_row_ = warp.uniform(this->rank() / warp_size) * base::M;

  __device__ __forceinline__ attention_wgmma_backward(params_type const& p, A* shared)
      : base(Consumers{}, p.backward),
        all(p),
        shared_memory(reinterpret_cast<char*>(shared)),
        address(warp.address(shared)),
        ring{address + barriers_at, stages},
        number_ring{address + barriers_at + ring_barriers::bytes(stages), 2} {}

  /// load(loader): called by the warps of the last warpgroup, with their numbers; compute(): by the others.
  template <class Load, class Compute>
  __device__ __forceinline__ void run(Load load, Compute compute) {
    Group const group{};
    if (group.rank() == 0) {
      ring.init(1, warpgroups * all.groups);
      number_ring.init(warp_size, Consumers::size() / warp_size);
      mbarrier_init_fence();
    }
    cluster.sync();
    int const loader = warp.uniform(group.rank() / warp_size) - Consumers::size() / warp_size;
    if (loader >= 0) {
      release_registers<56>();
      load(loader);
    } else {
      acquire_registers<224>();
      compute();
    }
    warp.sync();
    cluster.sync();  // no group ends while the other one may still store to its memory
  }
  /// `first`: row of the cluster. Called by any thread.
  __device__ __forceinline__ void set_rows(int first) {
    first_ = first + group_rank * Br, this->first_row_ = first_ + warp_row_;
  }
  __device__ __forceinline__ static int loader_lane() { return Group{}.rank() % warp_size; }

  __device__ __forceinline__ uint32 stage(ring_place p) const { return address + uint32(p.buffer * StageBytes); }
  /// Begins the copy of a tile: columns from `column` on of the rows from position `i` of the chunk on. Shared: to all
  /// groups of the cluster.
  template <bool Shared>
  __device__ __forceinline__ void load_tile(uint32 to, tensor_map const& map, tensor_view<T const, 4> const& t, int i,
                                            int column, uint32 barrier) const {
    auto const axis = [&](int n, index_t x) TCNCA_INLINE { return t.stride[n] == 0 ? 0 : int(x); };
    int const c[4] = {column, int(this->sequence_index(chunk_, i)), axis(1, chunk_.head), axis(0, chunk_.batch)};
    if (Shared && all.groups == 2) load_tensor_tile(to, &map, c, barrier, uint16(3));
    else load_tensor_tile(to, &map, c, barrier);
  }
  /// Hands the oldest stage in use back, to the loads of all groups. Called by a warpgroup whose products with it are
  /// complete.
  __device__ __forceinline__ void release(ring_place& used) const {
    if (thread_ < all.groups) mbarrier_arrive_cluster(cluster.address(ring.empty(used), thread_));
    ring.advance(used);
  }
  /// A stage that this warpgroup does not multiply. No product brings its warps together; without the barrier, some of
  /// them could miss the phase of a released stage, and the next.
  __device__ __forceinline__ void skip_stage(ring_place& next, ring_place& used) const {
    ring.wait_full(next);
    named_barrier(2 + warpgroup_, wgmma_tile::threads);
    ring.advance(next);
    release(used);
  }

  /// Stores four tiles of 8 columns of a row: `pair(k)` are this lane's two elements of tile k, columns from `column`
  /// on go to `to`; those from `columns` on are left out. The lanes of a row exchange words, so that each stores a
  /// whole tile. Called by a warp; `to` is null for rows that are not stored.
  template <class Pair>
  __device__ __forceinline__ void store_tiles(T* to, int column, int columns, Pair pair) const {
    int const number = this->column() / 2;  // of the lane in its row
    uint32 word[4];
    TCNCA_UNROLL
    for (int k = 0; k < 4; k++) {
      auto const x = pair(k);
      word[k] = element_pair<T>(x.lane(0), x.lane(1));
    }
    this->template exchange<1>(word, number), this->template exchange<2>(word, number);
    int const c = column + 8 * number;
    if (to != nullptr && c < columns) store_global_16(to + c, word);
  }
};

}  // namespace detail
#endif

}  // namespace tcnca
