// What the forward agents on tensor cores share: the geometry of an item, scores to weights, online softmax, and the
// output. A row of scores is spread over the four lanes whose numbers differ in the last two bits.
#pragma once
#include "forward.hpp"
#include "mma.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_output_warps : attention_warps<Group, T, Shape, Policy> {
  using base = attention_warps<Group, T, Shape, Policy>;
  using typename base::A, typename base::scores;
  using base::in, base::warp, base::softmax, base::chunk_, base::first_, base::first_row_, base::Br, base::Bc,
      base::key_tiles, base::infinity, base::row_pair;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int columns = Policy.value_tile, tiles = columns / mma_fragment::columns;

  params_type const& params;
  int begin_ = 0, end_ = 0;       // positions of the queries that exist: [begin_, end_)
  int column_ = 0, columns_ = 0;  // this group's first column of the values, and their number

  TCNCA_HOST_DEVICE attention_output_warps(Group g, params_type const& p) : base(g, p.in), params(p) {}

  TCNCA_HOST_DEVICE static constexpr index_t query_blocks(params_type const& p) {
    return divide_up(p.in.chunk, index_t(Br));
  }

  /// Items are numbered [chunk][query block][value tile]. The last queries of a causal chunk see the most keys. They
  /// come first, so that the groups finish at about the same time. Returns whether the block has queries. Called by all
  /// threads.
  TCNCA_HOST_DEVICE bool set_query_block(index_t item, index_t value_tiles) {
    index_t const blocks = query_blocks(params);
    this->set_row_block(int(blocks - 1 - item / value_tiles % blocks) * Br);
    chunk_ = this->chunk_of(item / value_tiles / blocks);
    begin_ = max_of(first_, chunk_.first), end_ = min_of(first_ + Br, chunk_.last);
    return begin_ < end_;
  }
  /// The query of a row of the block, null where it does not exist.
  TCNCA_HOST_DEVICE T const* query_row(int r) const {
    return first_ + r >= begin_ && first_ + r < end_ ? this->query(chunk_, first_ + r) : nullptr;
  }

  /// Output and statistics of a warp's queries; row[half]: the sum is that of this lane's columns.
  struct accumulators {
    detail::array<float[4], tiles> output;
    softmax_row<float> row[2];
  };
  TCNCA_HOST_DEVICE static void clear_accumulators(accumulators& acc) {
    base::clear(acc.output);
    acc.row[0] = acc.row[1] = {-infinity(), 0};
  }

  /// Products q . k of the block of keys at `from` to scores, -infinity where masked (softmax), or to weights, 0 where
  /// masked.
  TCNCA_HOST_DEVICE void finish_scores(scores& s, [[maybe_unused]] A const* biases, int from) const {
    bool const masked = from + Bc > this->visible(chunk_, first_row_);
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half), t = this->column();
      int const end = this->visible(chunk_, i) - from - t;  // of this lane's keys
      A const scale = softmax ? in.scale : this->scale(chunk_, i);
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        pack<A, 2> x = row_pair(s[n], half) * broadcast<2>(scale);
        if constexpr (Shape.bias) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, x.lane(e) + biases[Br - 1 - (i - first_) + 8 * n + t + e]);
        }
        if constexpr (!softmax) { x = attention_weight<Shape.function>(x).value; }
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++)
          s[n][2 * half + e] = masked && 8 * n + e >= end ? (softmax ? -infinity() : 0.f) : x.lane(e);
      }
    }
  }

  /// The maximum of a row of scores, and of `maximum`. Called by a whole warp; valid in the four lanes of the row.
  TCNCA_HOST_DEVICE float row_maximum(scores const& s, int half, float maximum) const {
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++)
      maximum = max_or_number(maximum, max_or_number(s[n][2 * half], s[n][2 * half + 1]));
    maximum = max_or_number(maximum, warp.shuffle_xor(maximum, 1));
    return max_or_number(maximum, warp.shuffle_xor(maximum, 2));
  }
  /// Replaces scores by weights, given the maxima of the rows so far, and rescales the sums and the output. Called by a
  /// whole warp.
  TCNCA_HOST_DEVICE void update_rows(scores& s, accumulators& acc, float const (&maximum)[2]) const {
    float factor[2];
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      auto& row = acc.row[half];
      factor[half] = row.rescale(maximum[half]);
      float even = row.sum, odd = 0;
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        even += s[n][2 * half] = row.weight(s[n][2 * half]);
        odd += s[n][2 * half + 1] = row.weight(s[n][2 * half + 1]);
      }
      row.sum = even + odd;
    }
    if (warp.any(factor[0] != 1 || factor[1] != 1)) {  // rare once the maxima have been found
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n++) {
        TCNCA_UNROLL
        for (int e = 0; e < 4; e++) acc.output[n][e] *= factor[e / 2];
      }
    }
  }
  /// The sum of a row over its four lanes. Called by a whole warp.
  TCNCA_HOST_DEVICE float row_sum(accumulators const& acc, int half) const {
    float sum = acc.row[half].sum;
    sum += warp.shuffle_xor(sum, 1);
    return sum + warp.shuffle_xor(sum, 2);
  }

  /// Stores a row of the output, normalized by the sum of its weights (softmax), and its statistics.
  TCNCA_HOST_DEVICE void store_row(accumulators const& acc, int half, [[maybe_unused]] float sum) const {
    int const i = this->position(half);
    if (i < begin_ || i >= end_) return;
    index_t const at = this->sequence_index(chunk_, i);
    float factor = 1;
    if constexpr (softmax) {
      factor = inverse_or_zero(sum);
      if (params.lse.present() && column_ == 0 && this->column() == 0)
        store_lse(params.lse, chunk_.batch, chunk_.head, at, acc.row[half].maximum, sum);
    }
    T* const to = params.o.at(chunk_.batch, chunk_.head, at, 0) + column_ + this->column();
    TCNCA_UNROLL
    for (int n = 0; n < tiles; n++)
      if (8 * n < columns_) this->store_pair(to + 8 * n, normalized(row_pair(acc.output[n], half), factor));
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
