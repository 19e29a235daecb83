// The forward pass on tensor cores of sm_90a, for wide values: the groups of a cluster divide the columns of the
// values, and those of two neighbouring blocks of queries share keys and values. Scores are computed once per value
// tile.
//
//   item      128 queries per row of the cluster, 256 columns of the values per column (chunked_attention_cluster_plan)
//   rounds    of one block of 64 keys per column. Each group computes the scores of its block for its queries; rows of
//             softmax advance to the maximum over the round; the weights go to all groups of the row, each of which
//             multiplies them by its columns of the values
//   warps     two warpgroups of 64 queries each, and a warpgroup that loads (wgmma_cluster.hpp). Nothing else passes
//             between the two warpgroups
//   order     the scores of a round are issued before the products with the values of the round before. Softmax and the
//             exchange among groups happen while those products are computed, also from one item to the next
//   memory    queries, and keys of one block; rings of blocks of weights and of units of 32 keys' values; two times a
//             number per query from each group of the row; biases of two blocks. See chunked_attention_cluster_plan
//   barriers  full and empty barriers for each buffer (ring_barriers), one of a warpgroup before weights are sent; of
//             the cluster when the kernel starts and ends. Where a key is masked for some queries of the group, both
//             warpgroups check the values for infinities and NaN together
//
// Results are those of the mma agent except for rounding: the maxima of softmax advance per round, not per block.
#pragma once
#include "wgmma_cluster.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// CUDA only. Group: 384 threads; Consumers: 256.
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_forward_agent;

#if defined(__CUDACC__)
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_forward_agent : detail::attention_cluster<Group, Consumers, T, Shape, Policy> {
  using base = detail::attention_cluster<Group, Consumers, T, Shape, Policy>;
  using typename base::A, typename base::scores, typename base::accumulators, typename base::item_walk,
      typename base::plan_type, typename base::row_factors;
  using base::in, base::softmax, base::warp, base::chunk_, base::first_, base::first_row_, base::columns_, base::params,
      base::plan, base::M, base::W, base::Br, base::Bc, base::key_tiles, base::tiles, base::position, base::column,
      base::lane, base::address, base::shared_memory, base::cluster_row, base::cluster_column, base::query_ring,
      base::key_ring, base::value_ring, base::bias_ring, base::blocks_, base::unit, base::line_bytes;
  using group_type = Group;
  using params_type = chunked_attention_cluster_params<T>;
  static constexpr bool persistent = true;
  static constexpr int threads = wgmma_tile::threads, units_per_block = Bc / unit;
  static_assert(Policy.valid_cluster() && Consumers::size() == Policy.threads &&
                    Group::size() == Policy.threads + threads,
                "tcnca::chunked_attention: a policy for clusters needs 256 threads, 128 queries, 64 keys and a "
                "value_tile of 256");

  TCNCA_HOST_DEVICE static int cluster_size(params_type const& p) { return p.plan.rows * p.plan.columns; }
  static group_memory memory_for(plan_type const& plan) { return {.shared_memory_bytes = size_t(plan.end())}; }
  static group_memory memory(params_type const& p) { return memory_for(p.plan); }

  __device__ __forceinline__ chunked_attention_wgmma_forward_agent(Group g, params_type const& p, A* shared, A*)
      : base(Consumers{}, p, shared, cluster_of<Group, 1>{}.rank()) {}

  __device__ __forceinline__ void operator()(item_range range) {
    if (group_type{}.rank() == 0) {
      this->init_loads();
      for (int w = 0; w < base::warpgroups; w++) {
        weights_of(w).init(1, plan.columns);
        for (int n = 0; n < 2; n++)
          detail::mbarrier_init(row_value_barrier(w, n), 1 + plan.columns * threads / warp_size);
      }
      detail::mbarrier_init_fence();
    }
    cluster.sync();
    int const loader = warp.uniform(group_type{}.rank() / warp_size) - Consumers::size() / warp_size;
    if (loader >= 0) {
      detail::release_registers<56>();
      load(range, loader);
    } else {
      detail::acquire_registers<224>();
      attend(range);
    }
    warp.sync();
    cluster.sync();  // no group ends while others may still store to its memory
  }

 private:
  cluster_of<Group, 1> cluster{};
  warpgroup_of<Group> warpgroup{};
  int const warpgroup_ = warp.uniform(this->rank() / threads), thread_ = this->rank() % threads;
  ring_barriers const weights = weights_of(warpgroup_);
  // Of scores: the next keys and biases, the weights of the round's first block. Of products: the next weights and
  // values, and those that are released next.
  ring_place query_place, key_place, bias_place, round_place, weight_place, value_place, used_weights, used_values;
  uint32 messages_ = 0;  // exchanges of row values so far

  /// A round whose products with the values are computed.
  struct round {
    index_t item = 0;
    int first = 0, blocks = 0;      // of keys
    int first_query = 0, keys = 0;  // of the group, of the chunk
    int unmasked = 0;               // keys before this one are visible to all queries of the group
    /// Query `row` of the group sees the keys before this one.
    __device__ __forceinline__ int visible(int row) const {
      return Shape.causal ? min_of(first_query + row + 1, keys) : keys;
    }
  };

  __device__ __forceinline__ void load(item_range range, int loader) {
    int const lane = group_type{}.rank() % warp_size;
    if (loader == 0 && lane == 0) this->load_values(range);
    if (loader == 1 && lane == 0) this->load_queries_and_keys(range);
    if constexpr (Shape.bias) {
      if (loader == 2) this->load_biases(range, lane);
    }
  }

  __device__ __forceinline__ void attend(item_range range) {
    item_walk walk{range};
    accumulators acc;
    base::clear_accumulators(acc);
    detail::softmax_row<float> done[2];  // of the item that ends
    round now;
    int first = 0;  // block of the round whose scores are computed
    bool more = this->next_item(walk);
    auto const last = [&] { return more && first + plan.columns >= blocks_; };
    auto const scored = [&] { return more && first + cluster_column < blocks_; };
    auto const ends = [&] { return now.blocks > 0 && (first == 0 || !more); };
    while (more || now.blocks > 0) {
      int const from = (first + cluster_column) * Bc;
      scores s;
      if (first == 0 && scored()) query_ring.wait_full(query_place);
      if (now.blocks > 0) {
        check_unit(acc, now, 0, value_place);
        check_unit(acc, now, 1, value_place.after(1, value_ring.buffers));
      }
      if (scored()) {
        issue_scores(s);
        if (now.blocks > 0) {
          issue_unit(acc, 0);
          issue_unit(acc, 1);
          warpgroup.template wait_groups<2>();
        } else {
          warpgroup.template wait_groups<0>();
        }
        warpgroup.result(s);
      } else {
        fill(s, -base::infinity());
      }
      if (ends()) finish_rows(acc, done);
      if (more && first == 0) acc.row[0] = acc.row[1] = {-base::infinity(), 0};
      if (scored()) release(key_ring, key_place, plan.rows, plan.columns, cluster_column);
      if (last()) release_queries();
      [[maybe_unused]] typename base::keep_mask mask{};
      if (scored()) {
        if constexpr (Shape.dropout) { mask = this->dropout_mask(from, 0, Bc / M); }
        finish_scores(s, from);
      }
      [[maybe_unused]] float maximum[2];
      if constexpr (softmax) {
        TCNCA_UNROLL
        for (int half = 0; half < 2; half++) maximum[half] = this->row_maximum(s, half, -base::infinity());
        if (more) send_row_values(maximum);
      }
      for (int u = scored() ? 2 : 0; u < now.blocks * units_per_block; u++) {
        if (u >= 2) check_unit(acc, now, u, value_place);
        issue_unit(acc, u);
        warpgroup.template wait_groups<2>();
        if (u >= 2) release_unit(u - 2);
      }
      [[maybe_unused]] row_factors factor{{1, 1}};
      if (more) {
        if constexpr (softmax) {
          receive_row_values(maximum, [](float a, float b) TCNCA_INLINE { return detail::max_or_number(a, b); });
          TCNCA_UNROLL
          for (int half = 0; half < 2; half++)
            maximum[half] = detail::max_or_number(acc.row[half].maximum, maximum[half]);
          factor = base::apply_maxima(s, acc.row, maximum);
        }
        if constexpr (Shape.dropout) { this->apply_dropout(s, mask); }
        if (scored()) send_weights(s);
        if constexpr (softmax) {
          if (last()) send_row_values({this->row_sum(acc, 0), this->row_sum(acc, 1)});
        }
      }
      warpgroup.template wait_groups<0>();
      warpgroup.result(acc.output);
      if (now.blocks > 0) {
        release_unit(0);
        release_unit(1);
      }
      if (ends()) {
        store_output(acc, done, now.item, more);
        base::clear(acc.output);
      } else if constexpr (softmax) {
        this->rescale(acc.output, factor);
      }
      now.blocks = 0;
      if (!more) continue;
      now = {this->item_, first,       min_of(plan.columns, blocks_ - first),
             first_,      chunk_.keys, this->visible(chunk_, first_)};
      expect_weights(now.blocks);
      first += plan.columns;
      more = first < blocks_;
      if (!more) more = this->next_item(walk), first = 0;
    }
  }

  __device__ __forceinline__ static void fill(scores& s, float x) {
    TCNCA_UNROLL
    for (int i = 0; i < 4 * key_tiles; i++) s[i / 4][i % 4] = x;
  }
  /// s = Q K^T of this group's block of keys.
  __device__ __forceinline__ void issue_scores(scores& s) {
    key_ring.wait_full(key_place);
    uint32 const k = address + uint32(plan.keys_at());
    warpgroup.fence();
    auto const multiply = [&](int d, bool add) {
      warpgroup.template multiply_rows<T>(s, wgmma_tile::of_rows(address, Br, warpgroup_ * wgmma_tile::rows, d),
                                          wgmma_tile::of_rows(k, Bc, 0, d), add);
    };
    multiply(0, false);
#pragma unroll 1
    for (int d = wgmma_tile::depth; d < in.key_dim(); d += wgmma_tile::depth) multiply(d, true);
    warpgroup.commit();
  }
  __device__ __forceinline__ void finish_scores(scores& s, int from) {
    if constexpr (Shape.bias) { bias_ring.wait_full(bias_place); }
    base::finish_scores(s, this->biases_of(bias_place), from);
    if constexpr (Shape.bias) {
      warp.sync();
      if (lane() == 0) detail::mbarrier_arrive(bias_ring.empty(bias_place));
      bias_ring.advance(bias_place);
    }
  }
  /// Before unit `u` of a round, whose values are at v: if a query does not see all of its keys.
  __device__ __forceinline__ void check_unit(accumulators& acc, round const& now, int u, ring_place v) {
    int const column = u % units_per_block * unit, key = (now.first + u / units_per_block) * Bc + column;
    if (key + unit <= now.unmasked) return;
    value_ring.wait_full(v);
    if (!this->has_non_finite(v)) return;
    weights.wait_full(weight_place);
    warpgroup.template wait_groups<0>();
    warpgroup.result(acc.output);
    this->add_non_finite(acc, v, this->elements(weights_at(weight_place)), column,
                         [&](int k, int r) TCNCA_INLINE { return key + k < now.visible(r); });
    warpgroup.fence_proxy_async();
    this->synchronize_consumers();
  }
  /// O += P V of unit `u` of a round, as a group of products.
  __device__ __forceinline__ void issue_unit(accumulators& acc, int u) {
    int const column = u % units_per_block * unit;
    if (column == 0) weights.wait_full(weight_place);
    value_ring.wait_full(value_place);
    warpgroup.fence();
    TCNCA_UNROLL
    for (int k = 0; k < unit; k += wgmma_tile::depth)
      warpgroup.template multiply_columns<T>(
          acc.output, wgmma_tile::of_rows(weights_at(weight_place), Br, warpgroup_ * wgmma_tile::rows, column + k),
          wgmma_tile::of_columns(this->values_at(value_place), unit, k));
    warpgroup.commit();
    value_ring.advance(value_place);
    if (column + unit == Bc) weights.advance(weight_place);
  }
  /// After the products of unit `u`.
  __device__ __forceinline__ void release_unit(int u) {
    release(value_ring, used_values, plan.rows, plan.columns, cluster_column);
    if (u % units_per_block == units_per_block - 1)
      release(weights, used_weights, plan.columns, 1, cluster_row * plan.columns);
  }
  /// Reports a buffer as empty to the groups first, first + step, ...: a thread each.
  __device__ __forceinline__ void release(ring_barriers const& ring, ring_place& place, int groups, int step,
                                          int first) {
    if (thread_ < groups) detail::mbarrier_arrive_cluster(cluster.address(ring.empty(place), first + thread_ * step));
    ring.advance(place);
  }
  /// After the scores of an item. If this group computed none, no product has brought its warps together: then only the
  /// thread that releases the queries waits for them, because others could miss that phase and the next.
  __device__ __forceinline__ void release_queries() {
    if (thread_ == 0) {
      query_ring.wait_full(query_place);
      detail::mbarrier_arrive(query_ring.empty(query_place));
    }
    query_ring.advance(query_place);
  }

  // What the groups of a row exchange.
  __device__ __forceinline__ ring_barriers weights_of(int w) const {
    return {bias_ring.address + uint32(ring_barriers::bytes(2) + w * ring_barriers::bytes(plan.weight_buffers)),
            plan.weight_buffers};
  }
  __device__ __forceinline__ uint32 row_value_barrier(int w, int n) const {
    return weights_of(base::warpgroups).address + uint32(8 * (2 * w + n));
  }
  __device__ __forceinline__ int rank_of_column(int c) const { return cluster_row * plan.columns + c; }
  __device__ __forceinline__ uint32 weights_at(ring_place p) const {
    return address + uint32(plan.weights_at() + p.buffer * plan_type::weights_bytes);
  }
  __device__ __forceinline__ int row(int half) const { return position(half) - first_; }
  /// Place of the number of row 0 from the group in column c.
  __device__ __forceinline__ int row_values_at(int c) const {
    return plan.row_values_at() + (int(messages_ % 2) * plan.columns + c) * Br * int(sizeof(A));
  }

  /// Sends a number of each row to all groups of the row of groups. The four lanes of a row have the same number; each
  /// sends it to one group. Calls alternate with receive_row_values: a group sends numbers n + 2 when it has those
  /// n + 1 of all groups, which they sent after they had read those n. So two buffers suffice.
  __device__ __forceinline__ void send_row_values(float const (&x)[2]) const {
    if (plan.columns == 1) return;
    uint32 const own = address + uint32(row_values_at(cluster_column)),
                 barrier = row_value_barrier(warpgroup_, int(messages_ % 2));
    if (int const to = lane() % 4; to < plan.columns) {
      uint32 const there = cluster.address(barrier, rank_of_column(to));
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++)
        detail::store_to_cluster(cluster.address(own + uint32(row(half) * int(sizeof(A))), rank_of_column(to)), x[half],
                                 there);
    }
    warp.sync();  // all lanes have read the numbers before
    if (lane() < plan.columns) detail::mbarrier_arrive_cluster(cluster.address(barrier, rank_of_column(lane())));
  }
  /// Replaces the numbers of this lane's rows by combine(... combine(first group's, second's) ...).
  template <class Combine>
  __device__ __forceinline__ void receive_row_values(float (&x)[2], Combine combine) {
    if (plan.columns == 1) return;
    uint32 const barrier = row_value_barrier(warpgroup_, int(messages_ % 2));
    if (thread_ == 0) detail::mbarrier_arrive_expect(barrier, plan.columns * wgmma_tile::rows * int(sizeof(A)));
    detail::mbarrier_wait(barrier, messages_ / 2 % 2);
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      TCNCA_UNROLL
      for (int c = 0; c < plan_type::most_columns; c++) {
        if (c >= plan.columns) continue;
        float const y = reinterpret_cast<float const*>(shared_memory + row_values_at(c))[row(half)];
        x[half] = c == 0 ? y : combine(x[half], y);
      }
    }
    messages_++;
  }
  /// The statistics of an item whose scores are all computed; the sum is over all groups and lanes.
  __device__ __forceinline__ void finish_rows(accumulators const& acc, detail::softmax_row<float> (&done)[2]) {
    if constexpr (softmax) {
      float sum[2] = {this->row_sum(acc, 0), this->row_sum(acc, 1)};
      receive_row_values(sum, [](float a, float b) TCNCA_INLINE { return a + b; });
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) done[half] = {acc.row[half].maximum, sum[half]};
    }
  }
  /// Prepares the barriers for the weights of a round that other groups send.
  __device__ __forceinline__ void expect_weights(int blocks) {
    for (int b = 0; b < blocks; b++, weights.advance(round_place))
      if (thread_ == 0 && b != cluster_column)
        detail::mbarrier_arrive_expect(weights.full(round_place), wgmma_tile::rows * line_bytes);
  }
  /// Stores the weights of this group's keys, rounded to T, in all groups of the row: in this one by the threads, from
  /// there by bulk copies.
  __device__ __forceinline__ void send_weights(scores const& s) const {
    ring_place const at = round_place.after(cluster_column, weights.buffers);
    uint32 const own = weights_at(at) + uint32(warpgroup_ * wgmma_tile::rows * line_bytes), full = weights.full(at);
    typename base::weights p;
    base::round_weights(p, s);
    weights.wait_empty(at);
    tile_position const here = mma_load::a(lane());
    uint32 const rows = weights_at(at) + uint32(this->warp_row_ * line_bytes);
    TCNCA_UNROLL
    for (int k = 0; k < Bc / M; k++)
      warp.store_matrices(
          rows + uint32(here.row * line_bytes + swizzled_rows::offset(here.row, k * M + here.column) * 2), p[k]);
    warpgroup.fence_proxy_async();
    detail::named_barrier(1 + warpgroup_, threads);
    if (thread_ >= plan.columns) return;
    int const to = rank_of_column(thread_);
    if (thread_ == cluster_column) detail::mbarrier_arrive(full);
    else
      detail::copy_to_cluster(cluster.address(own, to), own, wgmma_tile::rows * line_bytes, cluster.address(full, to));
  }

  /// Stores the output of an item; `restore`: then goes back to the item whose scores are computed.
  __device__ __forceinline__ void store_output(accumulators& acc, detail::softmax_row<float> const (&done)[2],
                                               index_t item, bool restore) {
    index_t const next = this->item_;
    this->set_item(item);
    detail::softmax_row<float> const rows[2] = {acc.row[0], acc.row[1]};
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) acc.row[half] = done[half];
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) this->store_row_vectors(acc, half, done[half].sum);
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) acc.row[half] = rows[half];
    if (restore) this->set_item(next);
  }
};
#endif

}  // namespace tcnca
