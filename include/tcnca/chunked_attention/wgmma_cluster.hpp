// What the forward pass for clusters is made of besides products: its items, the warps that load (one thread for
// queries and keys and one for values, by bulk copies; a warp for biases), and the stores of the output.
#pragma once
#include "../arch/global_store.hpp"
#include "cluster_plan.hpp"
#include "mma_output.hpp"

#if defined(__CUDACC__)
namespace tcnca::inline TCNCA_TARGET::detail {

/// Consumers: the first 256 threads of Group, as a group of their own. Items are processed by all groups of a cluster.
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_cluster : attention_output_warps<Consumers, T, Shape, Policy> {
  using base = attention_output_warps<Consumers, T, Shape, Policy>;
  using typename base::A;
  using base::in, base::warp, base::chunk_, base::first_, base::first_row_, base::begin_, base::end_, base::column_,
      base::columns_, base::Br, base::Bc;
  using plan_type = chunked_attention_cluster_plan;
  static constexpr int warpgroups = Consumers::size() / wgmma_tile::threads, unit = plan_type::unit,
                       line_bytes = wgmma_tile::line_bytes, tile_bytes = unit * line_bytes,
                       value_panels = plan_type::group_columns / wgmma_tile::line;

  chunked_attention_cluster_params<T> const& cluster_params;
  plan_type const& plan;
  char* shared_memory;
  uint32 address;                   // its address
  int cluster_row, cluster_column;  // of this group
  ring_barriers query_ring, key_ring, value_ring, bias_ring;
  int const warp_row_;  // of this warp's queries, if it is a consumer
  index_t item_ = 0;
  int blocks_ = 0;  // blocks of keys of the item, at least 1

  __device__ __forceinline__ attention_cluster(Consumers c, chunked_attention_cluster_params<T> const& p, A* shared,
                                               int rank)
      : base(c, p.forward),
        cluster_params(p),
        plan(p.plan),
        shared_memory(reinterpret_cast<char*>(shared)),
        address(warp.address(shared)),
        cluster_row(rank / p.plan.columns),
        cluster_column(rank % p.plan.columns),
        query_ring{address + uint32(p.plan.barriers_at()), 1},
        key_ring{query_ring.address + ring_barriers::bytes(1), 1},
        value_ring{key_ring.address + ring_barriers::bytes(1), p.plan.value_stages},
        bias_ring{value_ring.address + ring_barriers::bytes(p.plan.value_stages), 2},
        warp_row_(warp.uniform(this->rank() / warp_size) * base::M) {}

  TCNCA_HOST_DEVICE static index_t query_blocks(chunked_attention_cluster_params<T> const& p) {
    return divide_up(p.forward.in.rows(), index_t(p.plan.rows * Br));
  }
  TCNCA_HOST_DEVICE static index_t items(chunked_attention_cluster_params<T> const& p) {
    return p.forward.in.all_chunks() * query_blocks(p) * p.plan.value_tiles;
  }

  /// The items of a cluster. Every second one is counted from the other end of its round of clusters, because the
  /// length of causal items has a period.
  struct item_walk {
    item_range range;
    index_t next = 0;
    __device__ __forceinline__ bool done() const { return next * range.stride >= range.end; }
    __device__ __forceinline__ index_t advance() {
      index_t const n = next++;
      return n % 2 == 0 ? range[n] : (n + 1) * range.stride - 1 - range.first;
    }
  };
  /// Goes to the next item with queries and returns true, or false if there is none. The same for all groups of the
  /// cluster. A chunk begins with its first key: there is no state.
  __device__ __forceinline__ bool next_item(item_walk& walk) {
    while (!walk.done())
      if (index_t const item = walk.advance(); item < walk.range.end && set_item(item)) return true;
    return false;
  }
  /// Items are numbered as those of the other agents; a block of queries is that of the cluster's rows.
  __device__ __forceinline__ bool set_item(index_t item) {
    index_t const tiles = plan.value_tiles, blocks = query_blocks(cluster_params);
    int const all = plan.rows * Br, first = int(blocks - 1 - item / tiles % blocks) * all;
    chunk_ = this->chunk_of(item / tiles / blocks);
    item_ = item;
    first_ = first + cluster_row * Br, first_row_ = first_ + warp_row_;
    begin_ = first_, end_ = min_of(first_ + Br, chunk_.last);
    column_ = (int(item % tiles) * plan.columns + cluster_column) * base::columns;
    columns_ = max_of(0, min_of(base::columns, in.value_dim() - column_));
    blocks_ = divide_up(max_of(1, this->visible(chunk_, min_of(first + all, chunk_.last) - 1)), Bc);
    return first < chunk_.last;
  }

  /// Called by one thread, before the first barrier of the cluster.
  __device__ __forceinline__ void init_loads() const {
    query_ring.init(1, warpgroups);
    key_ring.init(1, warpgroups * plan.rows);
    value_ring.init(1, warpgroups * plan.rows);
    bias_ring.init(warp_size, Consumers::size() / warp_size);
  }

  // The following are called by one thread.

  /// Queries of each item; keys of this group's block of each round, one half by each group of the column.
  __device__ __forceinline__ void load_queries_and_keys(item_range range) {
    ring_place q, k;
    int const panels = divide_up(in.key_dim(), wgmma_tile::line);
    for (item_walk walk{range}; next_item(walk);) {
      query_ring.wait_empty(q);
      mbarrier_arrive_expect(query_ring.full(q), panels * Br * line_bytes);
      for (int p = 0; p < panels; p++)
        for (int r = 0; r < Br; r += unit)
          load_tensor_tile(address + uint32((p * Br + r) * line_bytes), &cluster_params.q,
                           {p * wgmma_tile::line, sequence_row(first_ + r), axis(in.q, 1), axis(in.q, 0)},
                           query_ring.full(q));
      query_ring.advance(q);
      for (int block = cluster_column; block < blocks_; block += plan.columns) {
        key_ring.wait_empty(k);
        mbarrier_arrive_expect(key_ring.full(k), panels * Bc * line_bytes);
        for (int p = 0; p < panels; p++)
          for (int half = cluster_row; half < Bc / unit; half += plan.rows)
            load_shared_tile(
                address + uint32(plan.keys_at() + (p * Bc + half * unit) * line_bytes), &cluster_params.k,
                {p * wgmma_tile::line, sequence_row(block * Bc + half * unit), axis(in.k, 1), axis(in.k, 0)},
                key_ring.full(k));
        key_ring.advance(k);
      }
    }
  }
  /// Values of all blocks, the panels divided among the groups of the column.
  __device__ __forceinline__ void load_values(item_range range) {
    ring_place v;
    for (item_walk walk{range}; next_item(walk);)
      for (int from = 0; from < blocks_ * Bc; from += unit, value_ring.advance(v)) {
        value_ring.wait_empty(v);
        mbarrier_arrive_expect(value_ring.full(v), plan_type::stage_bytes);
        for (int p = cluster_row; p < value_panels; p += plan.rows)
          load_shared_tile(values_at(v) + uint32(p * tile_bytes), &cluster_params.v,
                           {column_ + p * wgmma_tile::line, sequence_row(from), axis(in.v, 1), axis(in.v, 0)},
                           value_ring.full(v));
      }
  }

  /// Biases of the diagonals of this group's blocks. Called by a warp.
  __device__ __forceinline__ void load_biases(item_range range, int lane) {
    ring_place b;
    for (item_walk walk{range}; next_item(walk);) {
      index_t const diagonal = in.chunk - Br - first_;  // of the last query and the first key
      for (int from = cluster_column * Bc; from < blocks_ * Bc; from += plan.columns * Bc, bias_ring.advance(b)) {
        bias_ring.wait_empty(b);
#pragma unroll 1  // few registers
        for (int x = lane; x < Br + Bc; x += warp_size) {
          index_t const d = diagonal + from + x;
          bool const present = d >= 0 && d < in.bias.extent[1];
          biases_of(b)[x] = present ? *in.bias.at(chunk_.head, d) : 0.f;
        }
        mbarrier_arrive(bias_ring.full(b));
      }
    }
  }

  /// Stores a row of the output as store_row does, in vectors of 16 bytes if rows are aligned to them: the lanes of a
  /// row exchange pairs, so that each has whole tiles. Called by a warp.
  __device__ __forceinline__ void store_row_vectors(typename base::accumulators const& acc, int half, float sum) const {
    if (!in.vectorizable) return this->store_row(acc, half, sum);
    bool const exists = this->row_exists(half);
    float const factor = exists ? this->store_statistics(acc.row[half], half, sum) : 0;
    int const number = this->column() / 2;  // of the lane in its row
    T* const to = this->output_row(half) + 8 * number;
    TCNCA_UNROLL
    for (int n = 0; n < base::tiles; n += 4) {
      uint32 word[4];
      TCNCA_UNROLL
      for (int k = 0; k < 4; k++) {
        auto const pair = normalized(base::row_pair(acc.output[n + k], half), factor);
        word[k] = element_pair<T>(pair.lane(0), pair.lane(1));
      }
      this->template exchange<1>(word, number), this->template exchange<2>(word, number);
      if (exists && 8 * (n + number) < columns_) store_global_16(to + 8 * n, word);
    }
  }

  /// Whether a unit of values holds an infinity or a NaN. Called by all consumers, which get the same.
  __device__ __forceinline__ bool has_non_finite(ring_place v) {
    uint32 found = 0;
    for (int i = this->rank(); i < plan_type::stage_bytes / 16; i += Consumers::size()) {
      uint32 word[4];
      warp.load_shared(word, values_at(v) + uint32(16 * i));
      TCNCA_UNROLL
      for (int k = 0; k < 4; k++) found |= base::non_finite(word[k]);
    }
    // Two sets of flags, because a warp may begin the next check while another one still reads.
    constexpr int warps = Consumers::size() / warp_size;
    int* const flags = reinterpret_cast<int*>(shared_memory + plan.flags_at()) + checks_++ % 2 * warps;
    bool const in_warp = warp.any(found != 0);
    if (this->lane() == 0) flags[this->rank() / warp_size] = in_warp;
    synchronize_consumers();
    int any = 0;
    for (int w = 0; w < warps; w++) any |= flags[w];
    return any != 0;
  }
  /// 0 times a non-finite value of a masked key would be NaN. Adds such values of a unit to the rows that see them, and
  /// then replaces them by 0 for the product. weights: of the unit's block, from `column` on. visible(k, r): whether
  /// query r of the group sees key k of the unit. Rare, so short code rather than fast. Called by all consumers.
  template <class Visible>
  __device__ __forceinline__ void add_non_finite(typename base::accumulators& acc, ring_place v, T const* weights,
                                                 int column, Visible visible) const {
    T* const values = elements(values_at(v));
    for (int k = 0; k < unit; k++) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        int const r = warp_row_ + mma_fragment::c(this->lane(), 2 * half).row;
        if (!visible(k, r)) continue;
        float const weight = to_accumulate(weights[wgmma_tile::offset(Br, r, column + k)]);
        TCNCA_UNROLL
        for (int n = 0; n < base::tiles; n++) {
          auto const x = tcnca::load<2>(values + wgmma_tile::offset(unit, k, 8 * n) + this->column());
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++)
            acc.output[n][2 * half + e] += base::is_finite(x.lane(e)) ? 0.f : weight * x.lane(e);
        }
      }
    }
    synchronize_consumers();
    for (int i = this->rank(); i < unit * base::columns; i += Consumers::size())
      if (!base::is_finite(to_accumulate(values[i]))) values[i] = T{0};
  }
  __device__ __forceinline__ void synchronize_consumers() const { named_barrier(1 + warpgroups, Consumers::size()); }

 protected:
  __device__ __forceinline__ T* elements(uint32 at) const {
    return reinterpret_cast<T*>(shared_memory + (at - address));
  }
  __device__ __forceinline__ uint32 values_at(ring_place v) const {
    return address + uint32(plan.values_at() + v.buffer * plan_type::stage_bytes);
  }
  __device__ __forceinline__ A* biases_of(ring_place b) const {
    return reinterpret_cast<A*>(shared_memory + plan.biases_at() + b.buffer * plan_type::biases_bytes);
  }

 private:
  int checks_ = 0;

  __device__ __forceinline__ int sequence_row(int i) const { return int(this->sequence_index(chunk_, i)); }
  __device__ __forceinline__ int axis(tensor_view<T const, 4> const& t, int n) const {
    return t.stride[n] == 0 ? 0 : int(n == 0 ? chunk_.batch : chunk_.head);
  }
  /// A tile for all groups of the column.
  __device__ __forceinline__ void load_shared_tile(uint32 to, tensor_map const* map, int const (&c)[4],
                                                   uint32 barrier) const {
    if (plan.rows == 1) load_tensor_tile(to, map, c, barrier);
    else load_tensor_tile(to, map, c, barrier, uint16((1 | 1 << plan.columns) << cluster_column));
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
#endif
