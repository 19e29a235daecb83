// The forward pass on tensor cores of sm_90a, for wide values: the groups of a cluster divide the columns of the
// values. Each group computes the weights of its share of the keys and sends them to the others, so that scores are
// computed once, not once per tile of values.
//
//   item      a block of 128 queries of one chunk, and for each group of the cluster a tile of 256 columns of the
//             values
//   loop      rounds of one block of 64 keys per group:
//               scores of this group's block (wgmma); softmax: row maxima to all groups; weights to all groups;
//               O += P V for the blocks of all groups (wgmma), values of the next block in flight
//   memory    shared, in this order: queries; keys of this group's block; weights of all groups' blocks; two stages of
//             a block of values (all of these as panels, wgmma_tile); biases of this group's diagonals; one number per
//             row from each group; one flag per warp
//   barriers  group: keys have landed; one more per further block of values
//             cluster: maxima are there, and the weights of the previous round have been read
//             cluster: weights are there
//             cluster: when the kernel starts, and when an item ends
//
// Results are those of the mma agent except for rounding: the maxima of softmax advance per round, not per block. Not
// yet run on a device. A measured version should try: scores of the next round before the products of this one, to hide
// softmax and the cluster's barriers; tensor maps and a producer warp instead of cp.async; keys loaded once per
// cluster.
#pragma once
#include "../block/wgmma.hpp"
#include "mma_output.hpp"

namespace tcnca::inline TCNCA_TARGET {

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_forward_agent : detail::attention_output_warps<Group, T, Shape, Policy> {
  using base = detail::attention_output_warps<Group, T, Shape, Policy>;
  using typename base::A, typename base::scores, typename base::params_type, typename base::accumulators;
  using base::group, base::in, base::softmax, base::warp, base::chunk_, base::first_, base::first_row_, base::begin_,
      base::end_, base::column_, base::columns_, base::params, base::M, base::W, base::Br, base::Bc, base::columns,
      base::tiles, base::key_tiles, base::position, base::column, base::lane;
  static constexpr int cluster_size = Policy.cluster, line = wgmma_tile::line;
  static_assert(Policy.valid_cluster(),
                "tcnca::chunked_attention: a policy for clusters needs 128 queries, 64 keys, a value_tile of 256 and "
                "at most 8 groups");

  char* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_wgmma_forward_agent(Group g, params_type const& p, A* shared, A*)
      : base(g, p), shared_memory(reinterpret_cast<char*>(shared)) {
    cluster.sync();  // a group may store to another's shared memory only after that group has started
  }

  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns * cluster_size));
  }
  /// Items of clusters.
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.all_chunks() * base::query_blocks(p) * value_tiles(p);
  }

  // Byte offsets in shared memory.
  static constexpr int weights_bytes = wgmma_tile::bytes(Br, Bc), values_bytes = wgmma_tile::bytes(Bc, columns),
                       warps = Group::size() / warp_size;
  TCNCA_HOST_DEVICE static constexpr int keys_at(int key_dim) { return wgmma_tile::bytes(Br, key_dim); }
  TCNCA_HOST_DEVICE static constexpr int weights_at(int key_dim) {
    return keys_at(key_dim) + wgmma_tile::bytes(Bc, key_dim);
  }
  TCNCA_HOST_DEVICE static constexpr int values_at(int key_dim) {
    return weights_at(key_dim) + cluster_size * weights_bytes;
  }
  TCNCA_HOST_DEVICE static constexpr int biases_at(int key_dim) { return values_at(key_dim) + 2 * values_bytes; }
  TCNCA_HOST_DEVICE static constexpr int row_values_at(int key_dim) {
    return biases_at(key_dim) + (Shape.bias ? (Br + Bc) * int(sizeof(A)) : 0);
  }
  TCNCA_HOST_DEVICE static constexpr int flags_at(int key_dim) {
    return row_values_at(key_dim) + cluster_size * Br * int(sizeof(A));
  }
  static group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = size_t(flags_at(p.in.key_dim())) + size_t(warps) * sizeof(int)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    if (!this->set_query_block(item, value_tiles(params))) return;  // the same for the whole cluster
    rank_ = warp.uniform(cluster.rank());
    column_ = (int(item % value_tiles(params)) * cluster_size + rank_) * columns;
    columns_ = max_of(0, min_of(columns, in.value_dim() - column_));
    process_key_blocks();
  }

 private:
  warpgroup_of<Group> warpgroup{};
  cluster_of<Group, cluster_size> cluster{};
  int rank_ = 0;  // of this group in its cluster

  TCNCA_HOST_DEVICE T* elements(int at) const { return reinterpret_cast<T*>(shared_memory + at); }
  TCNCA_HOST_DEVICE T* queries() const { return elements(0); }
  TCNCA_HOST_DEVICE T* keys() const { return elements(keys_at(in.key_dim())); }
  TCNCA_HOST_DEVICE T* weights_of(int rank) const { return elements(weights_at(in.key_dim()) + rank * weights_bytes); }
  TCNCA_HOST_DEVICE T* values_of(int block) const {
    return elements(values_at(in.key_dim()) + block % 2 * values_bytes);
  }
  TCNCA_HOST_DEVICE A* biases() const { return reinterpret_cast<A*>(shared_memory + biases_at(in.key_dim())); }
  /// One number per row, from the group `rank`.
  TCNCA_HOST_DEVICE A* row_values(int rank) const {
    return reinterpret_cast<A*>(shared_memory + row_values_at(in.key_dim())) + rank * Br;
  }
  TCNCA_HOST_DEVICE int* flags() const { return reinterpret_cast<int*>(shared_memory + flags_at(in.key_dim())); }
  TCNCA_HOST_DEVICE int row(int half) const { return position(half) - first_; }
  TCNCA_HOST_DEVICE int first_row_of_warpgroup() const {
    return (first_row_ - first_) / wgmma_tile::rows * wgmma_tile::rows;
  }

  TCNCA_HOST_DEVICE void process_key_blocks() {
    int const visible = this->visible(chunk_, end_ - 1), blocks = divide_up(visible, Bc);
    accumulators acc;
    base::clear_accumulators(acc);
    if (blocks > 0) {
      load_panels<Br>(queries(), round_up(in.key_dim(), M), 0, in.key_dim(),
                      [&](int r) TCNCA_INLINE { return this->query_row(r); });
      load_keys(rank_ * Bc, visible);
      load_values(0, visible);
    }
    for (int first = 0; first < blocks; first += cluster_size) {
      int const from = (first + rank_) * Bc;
      wait_for_copies();
      [[maybe_unused]] typename base::keep_mask mask{};
      if constexpr (Shape.dropout) { mask = this->dropout_mask(from, 0, Bc / 16); }
      scores s;
      compute_scores(s);
      this->finish_scores(s, biases(), from);
      if constexpr (softmax) { send_maxima(s); }
      cluster.sync();  // maxima are there; all groups have read the weights of the round before, this one its keys
      if constexpr (softmax) { this->update_rows(s, acc, cluster_maximum(acc).row); }
      if constexpr (Shape.dropout) { this->apply_dropout(s, mask); }
      send_weights(s);
      if (first + cluster_size < blocks) load_keys(from + cluster_size * Bc, visible);
      cluster.sync();                 // weights are there
      warpgroup.fence_proxy_async();  // other groups' stores are read by this group's products
      for (int block = first; block < min_of(first + cluster_size, blocks); block++) {
        if (block > first) wait_for_copies();
        if (block + 1 < blocks) load_values(block + 1, visible);
        if (columns_ > 0) add_products(acc, block - first, block);
      }
    }
    store_output(acc);
    cluster.sync();  // the next item reuses the memory; no group ends while others may still store to its shared memory
  }

  /// All copies that were begun have landed and are visible to wgmma; everything the threads did before is done. Called
  /// by all threads.
  TCNCA_HOST_DEVICE void wait_for_copies() const {
    warp.wait();
    warpgroup.fence_proxy_async();
    group.sync();
  }
  /// Begins copies of columns [first, first + width) of rows to panels of Rows rows; zeros from `end` on and where
  /// source(r) is null. Eight threads copy 128 bytes of a row. Called by all threads.
  template <int Rows, class Source>
  TCNCA_HOST_DEVICE void load_panels(T* to, int width, int first, int end, Source source) const {
    for (int r = group.rank() / 8; r < Rows; r += Group::size() / 8) {
      T const* const from = source(r);
      for (int c = group.rank() % 8 * W; c < width; c += line) {
        bool const present = from != nullptr && first + c < end;
        T* const at = to + wgmma_tile::offset(Rows, r, c);
        if (in.vectorizable) {
          warp.copy_16(warp.address(at), present ? from + first + c : in.q.data, present);
        } else {
          TCNCA_UNROLL
          for (int e = 0; e < W; e++) at[e] = present ? from[first + c + e] : T{0};
        }
      }
    }
  }
  /// The keys from `from` on, and the biases of the block's diagonals.
  TCNCA_HOST_DEVICE void load_keys(int from, int visible) const {
    load_panels<Bc>(keys(), round_up(in.key_dim(), M), 0, in.key_dim(),
                    [&](int r) TCNCA_INLINE { return from + r < visible ? this->key(chunk_, from + r) : nullptr; });
    if constexpr (Shape.bias) { this->load_biases(biases(), from); }
    warp.commit();
  }
  /// This group's columns of a block of values; zeros past the last column.
  TCNCA_HOST_DEVICE void load_values(int block, int visible) const {
    if (columns_ == 0) return;
    load_panels<Bc>(values_of(block), columns, column_, column_ + columns_, [&](int r) TCNCA_INLINE {
      return block * Bc + r < visible ? this->values(chunk_, block * Bc + r) : nullptr;
    });
    warp.commit();
  }

  /// s = Q K^T of this group's block of keys.
  TCNCA_HOST_DEVICE void compute_scores(scores& s) const {
    uint32 const q = warpgroup.address(queries()), k = warpgroup.address(keys());
    warpgroup.fence();
    for (int d = 0; d < in.key_dim(); d += wgmma_tile::depth)
      warpgroup.template multiply_rows<T>(s, wgmma_tile::of_rows(q, Br, first_row_of_warpgroup(), d),
                                          wgmma_tile::of_rows(k, Bc, 0, d), d > 0);
    warpgroup.wait(s);
  }

  /// Stores a number of this lane's row to row_values(rank_) of all groups. The four lanes of the row have the same
  /// number.
  TCNCA_HOST_DEVICE void send_row_value(int half, float x) const {
    if (column() != 0) return;
    for (int rank = 0; rank < cluster_size; rank++) cluster.store(row_values(rank_) + row(half), rank, x);
  }
  TCNCA_HOST_DEVICE void send_maxima(scores const& s) const {
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) send_row_value(half, this->row_maximum(s, half, -base::infinity()));
  }
  struct two_maxima {
    float row[2];
  };
  /// The maxima of this lane's rows over all groups' keys so far.
  TCNCA_HOST_DEVICE two_maxima cluster_maximum(accumulators const& acc) const {
    two_maxima m;
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      m.row[half] = acc.row[half].maximum;
      TCNCA_UNROLL
      for (int rank = 0; rank < cluster_size; rank++)
        m.row[half] = detail::max_or_number(m.row[half], row_values(rank)[row(half)]);
    }
    return m;
  }
  /// Stores the weights of this group's keys, rounded to T, in all groups. Each warp sends its own rows: first to this
  /// group's memory, then from there in units of 16 bytes.
  TCNCA_HOST_DEVICE void send_weights(scores const& s) const {
    T* const p = weights_of(rank_);
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        pack<float, 2> const x = base::row_pair(s[n], half);
        store<2>(p + wgmma_tile::offset(Br, row(half), 8 * n) + column(), x);
      }
    }
    warp.sync();
    for (int i = lane(); i < M * line / W; i += warp_size) {
      T* const at = p + (first_row_ - first_) * line + i * W;  // in the order of memory
      auto const words = load_words(at);
      for (int other = 1; other < cluster_size; other++) cluster.store(at, (rank_ + other) % cluster_size, words.word);
    }
    cluster.fence_proxy_async();
  }
  struct alignas(16) four_words {
    uint32 word[4];
  };
  TCNCA_HOST_DEVICE static four_words load_words(T const* p) {
    four_words x;
    __builtin_memcpy(&x, __builtin_assume_aligned(p, 16), sizeof(x));
    return x;
  }

  /// O += P V for the keys of group `rank`.
  TCNCA_HOST_DEVICE void add_products(accumulators& acc, int rank, int block) const {
    T* const values = values_of(block);
    if (Shape.causal && (block + 1) * Bc > first_ + 1 && has_non_finite(values)) {
      add_non_finite(acc, rank, block, values);
    }
    uint32 const p = warpgroup.address(weights_of(rank)), v = warpgroup.address(values);
    warpgroup.fence();
    TCNCA_UNROLL
    for (int k = 0; k < Bc; k += wgmma_tile::depth)
      warpgroup.template multiply_columns<T>(acc.output, wgmma_tile::of_rows(p, Br, first_row_of_warpgroup(), k),
                                             wgmma_tile::of_columns(v, Bc, k));
    warpgroup.wait(acc.output);
  }
  /// Whether a block of values holds an infinity or a NaN. Called by all threads, which get the same; one barrier.
  TCNCA_HOST_DEVICE bool has_non_finite(T const* values) const {
    bool found = false;
    for (int i = group.rank(); i < Bc * columns / W; i += Group::size()) {
      auto const v = load<W>(values + i * W);
      TCNCA_UNROLL
      for (int e = 0; e < W; e++) found = found || !base::is_finite(v.lane(e));
    }
    found = warp.any(found);
    if (lane() == 0) flags()[group.rank() / warp_size] = found;
    group.sync();
    int any = 0;
    for (int w = 0; w < warps; w++) any |= flags()[w];
    return any != 0;
  }
  /// 0 times a non-finite value of a masked key would be NaN. Adds such values to the rows that see them and replaces
  /// them by 0 for the product. Rare, so short code rather than fast. Called by all threads.
  TCNCA_HOST_DEVICE void add_non_finite(accumulators& acc, int rank, int block, T* values) const {
    for (int key = 0; key < Bc; key++) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        if (block * Bc + key >= this->visible(chunk_, position(half))) continue;
        float const weight = to_accumulate(weights_of(rank)[wgmma_tile::offset(Br, row(half), key)]);
        TCNCA_UNROLL
        for (int n = 0; n < tiles; n++) {
          auto const v = load<2>(values + wgmma_tile::offset(Bc, key, 8 * n) + column());
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++)
            acc.output[n][2 * half + e] += base::is_finite(v.lane(e)) ? 0.f : weight * v.lane(e);
        }
      }
    }
    group.sync();
    for (int i = group.rank(); i < Bc * columns; i += Group::size())
      if (!base::is_finite(to_accumulate(values[i]))) values[i] = T{0};
    warpgroup.fence_proxy_async();
    group.sync();
  }

  /// Stores the output, normalized by the sums over all groups (softmax).
  TCNCA_HOST_DEVICE void store_output(accumulators const& acc) const {
    if constexpr (softmax) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) send_row_value(half, this->row_sum(acc, half));
      cluster.sync();
    }
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      float sum = 0;
      if constexpr (softmax) {
        for (int rank = 0; rank < cluster_size; rank++) sum += row_values(rank)[row(half)];
      }
      this->store_row(acc, half, sum);
    }
  }
};

}  // namespace tcnca
