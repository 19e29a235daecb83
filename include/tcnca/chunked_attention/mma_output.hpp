// What the forward agents on tensor cores share: the geometry of an item, scores to weights, online softmax, and the
// output. A row of scores is spread over the four lanes whose numbers differ in the last two bits.
#pragma once
#include "forward_params.hpp"
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
    begin_ = max_of(first_, chunk_.first), end_ = min_of(first_ + Br, this->query_end(chunk_));
    return begin_ < (Shape.head_lengths ? min_of(first_ + Br, chunk_.last) : end_);
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
    bool const masked = from + Bc > this->visible(chunk_, first_row_) ||
                        (Shape.window && from < this->hidden(first_row_ + base::M - 1));
    [[maybe_unused]] A const distance_factor = this->distance_factor(chunk_);
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half), t = this->column();
      int const end = this->visible(chunk_, i) - from - t;  // of this lane's keys
      [[maybe_unused]] int const begin = this->hidden(i) - from - t;
      A const scale = softmax ? in.scale : this->scale(chunk_, i);
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        pack<A, 2> x = row_pair(s[n], half) * broadcast<2>(scale);
        if constexpr (Shape.bias) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, x.lane(e) + biases[Br - 1 - (i - first_) + 8 * n + t + e]);
        }
        if constexpr (Shape.alibi) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++)
            x.set_lane(e, x.lane(e) - distance_factor * base::distance(i, from + 8 * n + t + e));
        }
        if constexpr (!softmax) { x = attention_weight<Shape.function>(x).value; }
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++)
          s[n][2 * half + e] = masked && (8 * n + e >= end || (Shape.window && 8 * n + e < begin))
                                   ? (softmax ? -infinity() : 0.f)
                                   : x.lane(e);
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
  /// Replaces scores by weights, given the maxima of the rows so far, and adds them to the sums. Returns the factors of
  /// the outputs so far. Called by any lane.
  struct row_factors {
    float row[2];
  };
  TCNCA_HOST_DEVICE static row_factors apply_maxima(scores& s, softmax_row<float> (&rows)[2],
                                                    float const (&maximum)[2]) {
    row_factors factor;
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      auto& row = rows[half];
      factor.row[half] = row.rescale(maximum[half]);
      float even = row.sum, odd = 0;
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        even += s[n][2 * half] = row.weight(s[n][2 * half]);
        odd += s[n][2 * half + 1] = row.weight(s[n][2 * half + 1]);
      }
      row.sum = even + odd;
    }
    return factor;
  }
  /// Multiplies the outputs so far. Called by a whole warp.
  TCNCA_HOST_DEVICE void rescale(detail::array<float[4], tiles>& output, row_factors factor) const {
    if (!warp.any(factor.row[0] != 1 || factor.row[1] != 1)) return;  // rarely not, once the maxima have been found
    TCNCA_UNROLL
    for (int n = 0; n < tiles; n++) {
      TCNCA_UNROLL
      for (int e = 0; e < 4; e++) output[n][e] *= factor.row[e / 2];
    }
  }
  /// The sum of a row over its four lanes. Called by a whole warp.
  TCNCA_HOST_DEVICE float row_sum(accumulators const& acc, int half) const {
    float sum = acc.row[half].sum;
    sum += warp.shuffle_xor(sum, 1);
    return sum + warp.shuffle_xor(sum, 2);
  }

  /// Stores a row of the output, normalized by the sum of its weights (softmax), and its statistics.
  TCNCA_HOST_DEVICE void store_row(accumulators const& acc, int half, float sum) const {
    if (!row_exists(half)) return;
    bool const attends = !Shape.head_lengths || this->position(half) < end_;
    float const own_factor = store_statistics(acc.row[half], half, attends ? sum : 0.f),
                factor = attends ? own_factor : 0.f;
    T* const to = output_row(half) + this->column();
    TCNCA_UNROLL
    for (int n = 0; n < tiles; n++)
      if (8 * n < columns_) this->store_pair(to + 8 * n, normalized(row_pair(acc.output[n], half), factor));
  }

  /// Whether the row is a query, one that does not attend included: its output is 0.
  TCNCA_HOST_DEVICE bool row_exists(int half) const {
    return this->position(half) >= begin_ && this->position(half) < (Shape.head_lengths ? chunk_.last : end_);
  }
  TCNCA_HOST_DEVICE T* output_row(int half) const {
    index_t const at = this->sequence_index(chunk_, this->position(half));
    return params.o.at(chunk_.batch, chunk_.head, at, 0) + column_;
  }
  /// Returns the factor of the row's outputs.
  TCNCA_HOST_DEVICE float store_statistics([[maybe_unused]] softmax_row<float> const& row, int half,
                                           [[maybe_unused]] float sum) const {
    if constexpr (softmax) {
      if (params.lse.present() && column_ == 0 && this->column() == 0)
        store_lse(params.lse, chunk_.batch, chunk_.head, this->sequence_index(chunk_, this->position(half)),
                  row.maximum, sum);
      return inverse_or_zero(sum);
    } else {
      return 1;
    }
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
