// The forward pass on tensor cores of sm_90a, for values so wide that their columns are shared out to the groups of a cluster: each group
// computes the scores of its share of the keys, and hands the weights to the others. So scores are computed once, not once a tile of values.
#pragma once
#include "../block/wgmma.hpp"
#include "forward.hpp"
#include "mma.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The forward pass of one item: 128 queries, and a tile of 256 columns of the values for each group of a cluster; the same results as the
/// agent for mma but for rounding: a turn takes one block of 64 keys for each group of the cluster, and softmax's maxima follow turns, not blocks.
/// A turn: scores of this group's block of keys; (softmax) maxima to all groups; weights to all groups; products with all blocks of values.
/// Fast memory, in this order: queries, keys of this group's block, weights of all groups' blocks, two stages of a block of values (all as
/// panels, wgmma_tile), biases of the diagonals of this group's block, a number of each row from each group, a flag of each warp.
/// Not yet run on a device. What a measured version should try: the scores of the next turn before the products of this one, so that softmax
/// and the cluster's barriers hide behind them; tensor maps and a warp that only copies in place of cp.async; keys once a cluster.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_forward_agent : detail::attention_warps<Group, T, Shape, Policy> {
  using base = detail::attention_warps<Group, T, Shape, Policy>;
  using base::group, base::in, base::softmax, base::warp, base::chunk_, base::first_, base::first_row_, base::M,
      base::W, base::R, base::C;
  using base::position, base::column, base::lane, base::of_row, base::infinity, base::max_or_number, base::power,
      base::key_tiles;
  using typename base::scores, typename base::weights;
  using A = float;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int cluster_size = Policy.cluster;
  static constexpr int columns = Policy.value_tile, tiles = columns / mma_fragment::columns, line = wgmma_tile::line;
  static_assert(R == 2 * wgmma_tile::rows && C == line && columns == 256 && cluster_size >= 1 && cluster_size <= 8,
                "tcnca::chunked_attention: a policy for clusters needs 128 queries, 64 keys, a value_tile of 256 and "
                "at most 8 groups");

  params_type const& params;
  char* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_wgmma_forward_agent(Group g, params_type const& p, A* shared_memory, A*)
      : base(g, p.in), params(p), shared_memory(reinterpret_cast<char*>(shared_memory)) {}

  TCNCA_HOST_DEVICE static constexpr index_t query_blocks(params_type const& p) {
    return divide_up(p.in.chunk, index_t(R));
  }
  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns * cluster_size));
  }
  /// Of clusters.
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.chunks() * query_blocks(p) * value_tiles(p);
  }

  // Bytes from the beginning of fast memory.
  static constexpr int weights_bytes = wgmma_tile::bytes(R, C), values_bytes = wgmma_tile::bytes(C, columns),
                       warps = Group::size() / warp_size;
  TCNCA_HOST_DEVICE static constexpr int keys_at(int key_dim) { return wgmma_tile::bytes(R, key_dim); }
  TCNCA_HOST_DEVICE static constexpr int weights_at(int key_dim) {
    return keys_at(key_dim) + wgmma_tile::bytes(C, key_dim);
  }
  TCNCA_HOST_DEVICE static constexpr int values_at(int key_dim) {
    return weights_at(key_dim) + cluster_size * weights_bytes;
  }
  TCNCA_HOST_DEVICE static constexpr int biases_at(int key_dim) { return values_at(key_dim) + 2 * values_bytes; }
  TCNCA_HOST_DEVICE static constexpr int numbers_at(int key_dim) {
    return biases_at(key_dim) + (Shape.bias ? (R + C) * int(sizeof(A)) : 0);
  }
  TCNCA_HOST_DEVICE static constexpr int flags_at(int key_dim) {
    return numbers_at(key_dim) + cluster_size * R * int(sizeof(A));
  }
  static size_t shared_memory_bytes(int key_dim) { return size_t(flags_at(key_dim)) + size_t(warps) * sizeof(int); }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const blocks = query_blocks(params);
    int const value_tile = int(item % value_tiles(params));
    // The last queries of a causal chunk see the most keys: they come first, so that the clusters end together.
    int const first = int(blocks - 1 - item / value_tiles(params) % blocks) * R;
    chunk_ = this->chunk_of(item / value_tiles(params) / blocks);
    begin_ = max_of(first, chunk_.first), end_ = min_of(first + R, chunk_.last);
    if (begin_ >= end_) return;  // the whole cluster
    this->begin_rows(first);
    rank_ = warp.uniform(cluster.rank());
    column_ = (value_tile * cluster_size + rank_) * columns;
    columns_ = max_of(0, min_of(columns, in.value_dim() - column_));
    walk();
  }

 private:
  warpgroup_of<Group> warpgroup{};
  cluster_of<Group, cluster_size> cluster{};
  int rank_ = 0;
  int begin_ = 0, end_ = 0;       // of the queries that exist
  int column_ = 0, columns_ = 0;  // of the values, this group's; there may be none

  /// The output of a warp's queries as in the agent for mma; running maximum and sum of the rows g and g + 8 (sums: this lane's part of this group's).
  struct accumulators {
    detail::array<float[4], tiles> o;
    float most[2], sum[2];
  };

  TCNCA_HOST_DEVICE T* elements(int at) const { return reinterpret_cast<T*>(shared_memory + at); }
  TCNCA_HOST_DEVICE T* queries() const { return elements(0); }
  TCNCA_HOST_DEVICE T* keys() const { return elements(keys_at(in.key_dim())); }
  TCNCA_HOST_DEVICE T* weights_of(int rank) const { return elements(weights_at(in.key_dim()) + rank * weights_bytes); }
  TCNCA_HOST_DEVICE T* values_of(int block) const {
    return elements(values_at(in.key_dim()) + block % 2 * values_bytes);
  }
  TCNCA_HOST_DEVICE A* biases() const { return reinterpret_cast<A*>(shared_memory + biases_at(in.key_dim())); }
  TCNCA_HOST_DEVICE A* numbers(int rank) const {
    return reinterpret_cast<A*>(shared_memory + numbers_at(in.key_dim())) + rank * R;
  }
  TCNCA_HOST_DEVICE int* flags() const { return reinterpret_cast<int*>(shared_memory + flags_at(in.key_dim())); }
  TCNCA_HOST_DEVICE int row(int half) const { return position(half) - first_; }
  TCNCA_HOST_DEVICE int first_row_of_warpgroup() const {
    return (first_row_ - first_) / wgmma_tile::rows * wgmma_tile::rows;
  }

  TCNCA_HOST_DEVICE void walk() {
    int const visible = this->visible(chunk_, end_ - 1), blocks = divide_up(visible, C);
    accumulators acc;
    base::clear(acc.o);
    acc.most[0] = acc.most[1] = -infinity(), acc.sum[0] = acc.sum[1] = 0;
    if (blocks > 0) {
      load_panels<R>(queries(), round_up(in.key_dim(), M), 0, in.key_dim(), [&](int r) TCNCA_INLINE {
        return first_ + r >= begin_ && first_ + r < end_ ? this->query(chunk_, first_ + r) : nullptr;
      });
      load_keys(rank_ * C, visible);
      load_values(0, visible);
    }
    for (int first = 0; first < blocks; first += cluster_size) {
      int const from = (first + rank_) * C;
      arrive();
      [[maybe_unused]] typename base::keep_mask keep{};
      if constexpr (Shape.dropout) { keep = this->draw(from, 0, C / 16); }
      scores s;
      score(s);
      weigh(s, from);
      if constexpr (softmax) { show_maxima(s); }
      cluster.sync();  // all groups are done with the last turn's weights; this one with its keys
      if constexpr (softmax) { normalize(s, acc); }
      if constexpr (Shape.dropout) { this->drop(s, keep); }
      broadcast_weights(s);
      if (first + cluster_size < blocks) load_keys(from + cluster_size * C, visible);
      cluster.sync();
      warpgroup.publish();  // what others stored, for this group's products
      for (int block = first; block < min_of(first + cluster_size, blocks); block++) {
        if (block > first) arrive();
        if (block + 1 < blocks) load_values(block + 1, visible);
        if (columns_ > 0) add_products(acc, block - first, block);
      }
    }
    finish(acc);
    cluster.sync();  // the next item reuses the memory, or a group ends, to whose memory nobody writes any more
  }

  /// The copies that were begun have arrived, for products too; and what all threads did before is done.
  TCNCA_HOST_DEVICE void arrive() const {
    warp.wait();
    warpgroup.publish();
    group.sync();
  }
  /// Columns [first, first + width) of rows of the caller's, zeros past `end` and where source(r) is null. Eight threads copy 128 bytes.
  template <int Rows, class Source>
  TCNCA_HOST_DEVICE void load_panels(T* to, int width, int first, int end, Source source) const {
    for (int r = group.rank() / 8; r < Rows; r += Group::size() / 8) {
      T const* const from = source(r);
      for (int c = group.rank() % 8 * W; c < width; c += line) {
        bool const present = from != nullptr && first + c < end;
        T* const at = to + wgmma_tile::offset(Rows, r, c);
        if (in.vectorizable) {
          warp.copy_16(warp.place(at), present ? from + first + c : in.q.data, present);
        } else {
          TCNCA_UNROLL
          for (int e = 0; e < W; e++) at[e] = present ? from[first + c + e] : T{0};
        }
      }
    }
  }
  /// The keys from `from` on, and the biases of the diagonals, falling from the last query and the first key.
  TCNCA_HOST_DEVICE void load_keys(int from, int visible) const {
    load_panels<C>(keys(), round_up(in.key_dim(), M), 0, in.key_dim(),
                   [&](int r) TCNCA_INLINE { return from + r < visible ? this->key(chunk_, from + r) : nullptr; });
    if constexpr (Shape.bias) {
      for (int x = group.rank(); x < R + C; x += Group::size()) {
        index_t const d = in.chunk - 1 + from - first_ + x - (R - 1);
        bool const present = d >= 0 && d < in.bias.extent[1];
        warp.copy_4(warp.place(biases() + x), present ? in.bias.at(chunk_.head, d) : in.bias.data, present);
      }
    }
    warp.commit();
  }
  /// This group's columns of a block of values; those past the last are zero.
  TCNCA_HOST_DEVICE void load_values(int block, int visible) const {
    if (columns_ == 0) return;
    load_panels<C>(values_of(block), columns, column_, column_ + columns_, [&](int r) TCNCA_INLINE {
      return block * C + r < visible ? this->values(chunk_, block * C + r) : nullptr;
    });
    warp.commit();
  }

  /// Products of the queries with this group's keys.
  TCNCA_HOST_DEVICE void score(scores& s) const {
    uint32 const q = warpgroup.place(queries()), k = warpgroup.place(keys());
    warpgroup.begin();
    for (int d = 0; d < in.key_dim(); d += wgmma_tile::depth)
      warpgroup.template multiply_rows<T>(s, wgmma_tile::of_rows(q, R, first_row_of_warpgroup(), d),
                                          wgmma_tile::of_rows(k, C, 0, d), d > 0);
    warpgroup.end(s);
  }
  /// Softmax: scores; else weights. What is masked gives none.
  TCNCA_HOST_DEVICE void weigh(scores& s, int from) const {
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = position(half), end = this->visible(chunk_, i) - from - column();  // of this lane's keys
      A const scale = softmax ? in.scale : this->scale(chunk_, i);
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        pack<A, 2> x = of_row(s[n], half) * broadcast<2>(scale);
        if constexpr (Shape.bias) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, x.lane(e) + biases()[R - 1 - row(half) + 8 * n + column() + e]);
        }
        if constexpr (!softmax) { x = detail::attention_weight<Shape.function>(x).value; }
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) s[n][2 * half + e] = 8 * n + e >= end ? (softmax ? -infinity() : 0.f) : x.lane(e);
      }
    }
  }
  /// A number of this lane's row to all groups.
  TCNCA_HOST_DEVICE void broadcast_number(int half, float x) const {
    if (column() != 0) return;
    for (int rank = 0; rank < cluster_size; rank++) cluster.store(numbers(rank_) + row(half), rank, x);
  }
  /// The rows' maxima over this group's keys.
  TCNCA_HOST_DEVICE void show_maxima(scores const& s) const {
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      float most = -infinity();
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) most = max_or_number(most, max_or_number(s[n][2 * half], s[n][2 * half + 1]));
      most = max_or_number(most, warp.exchange(most, 1));
      broadcast_number(half, max_or_number(most, warp.exchange(most, 2)));
    }
  }
  /// Scores to e^(score - maximum), with the maximum over all groups' keys so far.
  TCNCA_HOST_DEVICE void normalize(scores& s, accumulators& acc) const {
    float factor[2];
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      float most = acc.most[half];
      TCNCA_UNROLL
      for (int rank = 0; rank < cluster_size; rank++) most = max_or_number(most, numbers(rank)[row(half)]);
      // With nothing seen yet, or only -infinity, any finite number will do.
      float const zero_point = most == -infinity() ? 0.f : most;
      factor[half] = power(acc.most[half] - zero_point);
      float even = acc.sum[half] * factor[half], odd = 0;
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        even += s[n][2 * half] = power(s[n][2 * half] - zero_point);
        odd += s[n][2 * half + 1] = power(s[n][2 * half + 1] - zero_point);
      }
      acc.most[half] = most, acc.sum[half] = even + odd;
    }
    if (warp.any(factor[0] != 1 || factor[1] != 1)) {  // soon the maxima are found, and this is rare
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n++) {
        TCNCA_UNROLL
        for (int e = 0; e < 4; e++) acc.o[n][e] *= factor[e / 2];
      }
    }
  }
  /// The weights of this group's keys, as elements, to all groups: each warp its rows, first here, then from here 16 bytes at a time.
  TCNCA_HOST_DEVICE void broadcast_weights(scores const& s) const {
    T* const p = weights_of(rank_);
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        pack<float, 2> const x = of_row(s[n], half);
        store<2>(p + wgmma_tile::offset(R, row(half), 8 * n) + column(), x);
      }
    }
    warp.sync();
    for (int i = lane(); i < M * line / W; i += warp_size) {
      T* const at = p + (first_row_ - first_) * line + i * W;  // in the order of memory
      auto const words = load_words(at);
      for (int other = 1; other < cluster_size; other++) cluster.store(at, (rank_ + other) % cluster_size, words.word);
    }
    cluster.publish();
  }
  struct alignas(16) four_words {
    uint32 word[4];
  };
  TCNCA_HOST_DEVICE static four_words load_words(T const* p) {
    four_words x;
    __builtin_memcpy(&x, __builtin_assume_aligned(p, 16), sizeof(x));
    return x;
  }

  /// Adds the products of the weights of group `rank`'s keys with their values.
  TCNCA_HOST_DEVICE void add_products(accumulators& acc, int rank, int block) const {
    T* const values = values_of(block);
    if (Shape.causal && (block + 1) * C > first_ + 1 && holds_special(values)) add_special(acc, rank, block, values);
    uint32 const p = warpgroup.place(weights_of(rank)), v = warpgroup.place(values);
    warpgroup.begin();
    TCNCA_UNROLL
    for (int k = 0; k < C; k += wgmma_tile::depth)
      warpgroup.template multiply_columns<T>(acc.o, wgmma_tile::of_rows(p, R, first_row_of_warpgroup(), k),
                                             wgmma_tile::of_columns(v, C, k));
    warpgroup.end(acc.o);
  }
  /// Whether a block of values holds an infinity or a NaN; the same for all threads.
  TCNCA_HOST_DEVICE bool holds_special(T const* values) const {
    bool found = false;
    for (int i = group.rank(); i < C * columns / W; i += Group::size()) {
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
  /// Infinite and NaN values must not meet the weight 0 of a key that is masked for some rows: they are added to the rows that see them, and
  /// are 0 for the product. Rare: short code.
  TCNCA_HOST_DEVICE void add_special(accumulators& acc, int rank, int block, T* values) const {
    for (int key = 0; key < C; key++) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        if (block * C + key >= this->visible(chunk_, position(half))) continue;
        float const weight = to_accumulate(weights_of(rank)[wgmma_tile::offset(R, row(half), key)]);
        TCNCA_UNROLL
        for (int n = 0; n < tiles; n++) {
          auto const v = load<2>(values + wgmma_tile::offset(C, key, 8 * n) + column());
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) acc.o[n][2 * half + e] += base::is_finite(v.lane(e)) ? 0.f : weight * v.lane(e);
        }
      }
    }
    group.sync();
    for (int i = group.rank(); i < C * columns; i += Group::size())
      if (!base::is_finite(to_accumulate(values[i]))) values[i] = T{0};
    warpgroup.publish();
    group.sync();
  }

  /// The output, normalised, and the statistics.
  TCNCA_HOST_DEVICE void finish(accumulators& acc) const {
    if constexpr (softmax) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        float total = acc.sum[half];
        total += warp.exchange(total, 1);
        broadcast_number(half, total + warp.exchange(total, 2));
      }
      cluster.sync();
    }
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = position(half);
      if (i < begin_ || i >= end_) continue;
      index_t const at = chunk_.origin + i - in.position;
      float factor = 1;
      if constexpr (softmax) {
        float total = 0;
        for (int rank = 0; rank < cluster_size; rank++) total += numbers(rank)[row(half)];
        factor = total == 0 ? 0.f : 1 / total;
        if (params.lse.present() && column_ == 0 && column() == 0)
          detail::store_lse(params.lse, chunk_.batch, chunk_.head, at, acc.most[half], total);
      }
      T* const to = params.o.at(chunk_.batch, chunk_.head, at, 0) + column_ + column();
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n++) {
        if (8 * n >= columns_) continue;
        auto const v = factor == 0 ? broadcast<2>(0.f) : of_row(acc.o[n], half) * broadcast<2>(factor);
        if (in.vectorizable) store<2>(to + 8 * n, v);
        else store_some<2>(to + 8 * n, 1, 2, v);
      }
    }
  }
};

}  // namespace tcnca
