// Weights and gradients of scores by wgmma: see wgmma_backward.hpp.
//
//   item      128 queries per group of the cluster x 128 keys of a chunk; causal: only those of which some query sees
//             some key. The groups share K and V
//   loop      over 64 elements of the key dimension, S += Q K^T; then of the value dimension, dP += dO V^T
//   end       P and dS of softmax, laplace or relu2, with biases, dropout and masks; sums of dS along diagonals, by
//             warp (biases); P and dS rounded to T and stored. Both are 0 where a query does not see a key. If the
//             scale depends on the query, dS is multiplied by it
//   warps     two warpgroups of 64 queries each, which do not wait for each other: while one computes P and dS, the
//             other one multiplies. Of the warpgroup that loads, one thread for tiles and a warp for biases
//   memory    shared: six stages of 64 columns of 128 rows on both sides; biases of two items; for each warp 8 rows of
//             64 gradients
#pragma once
#include "wgmma_backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// CUDA only. Group: 384 threads; Consumers: 256.
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_scores_agent;

#if defined(__CUDACC__)
template <class Group, class Consumers, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_scores_agent
    : detail::attention_wgmma_backward<Group, Consumers, T, Shape, Policy, 32 * 1024> {
  using base = detail::attention_wgmma_backward<Group, Consumers, T, Shape, Policy, 32 * 1024>;
  using typename base::A, typename base::params_type, typename base::keep_mask;
  using base::in, base::warp, base::chunk_, base::first_, base::all, base::ring, base::number_ring, base::warpgroup,
      base::warpgroup_, base::Br, base::Bc, base::M, base::box, base::softmax, base::row_, base::row_pair;
  static constexpr int keys = 128, tiles = keys / mma_fragment::columns;
  static_assert(Br + keys <= base::numbers_bytes / 2 / int(sizeof(A)));

  __device__ __forceinline__ chunked_attention_wgmma_scores_agent(Group, params_type const& p, A* shared, A*)
      : base(p, shared) {}

  TCNCA_HOST_DEVICE static index_t items_per_chunk(params_type const& p) {
    index_t const rows = p.cluster_blocks();
    return Shape.causal ? p.groups * rows * (rows + 1) / 2 : rows * p.blocks();
  }
  TCNCA_HOST_DEVICE static index_t items(params_type const& p) { return p.chunks * items_per_chunk(p); }

  __device__ __forceinline__ void operator()(item_range range) {
    this->run(
        [&](int loader) TCNCA_INLINE {
          if (loader == 0 && this->loader_lane() == 0) load_tiles(range);
          if constexpr (Shape.bias) {
            if (loader == 1) load_numbers(range);
          }
        },
        [&]() TCNCA_INLINE { compute(range); });
  }

 private:
  int block_row_ = 0, block_column_ = 0;  // in the chunk
  index_t chunk_number_ = 0;              // of the launch
  int from_ = 0;                          // the item's first key
  bool active_ = false;                   // whether some query of the group sees some key

  /// Returns whether there is anything to compute, the same for all groups of the cluster. Items are numbered
  /// [chunk][block of queries][block of keys].
  __device__ __forceinline__ bool set_item(index_t item) {
    index_t const chunk = item / items_per_chunk(all);
    int const blocks = int(all.blocks());
    int row = 0, column = int(item % items_per_chunk(all));
    if constexpr (Shape.causal) {
      for (; column >= all.groups * (row + 1); row++) column -= all.groups * (row + 1);
    } else {
      row = column / blocks, column %= blocks;
    }
    chunk_ = this->chunk_of(all.first_chunk + chunk);
    chunk_number_ = chunk;
    int const first = row * all.groups * Br;
    this->set_rows(first);
    from_ = column * keys;
    block_row_ = row * all.groups + this->group_rank, block_column_ = column;
    active_ = first_ < chunk_.last && (!Shape.causal || from_ < first_ + Br);
    return first < chunk_.last && from_ < chunk_.keys;
  }

  /// Called by one thread.
  __device__ __forceinline__ void load_tiles(item_range range) {
    ring_place p;
    int const key_steps = divide_up(in.key_dim(), box), steps = key_steps + divide_up(in.value_dim(), box);
    for (index_t item = range.first; item < range.end; item += range.stride) {
      if (!set_item(item)) continue;
      for (int n = 0; n < steps; n++, ring.advance(p)) {
        bool const scores = n < key_steps;
        int const column = (scores ? n : n - key_steps) * box;
        uint32 to = this->stage(p);
        ring.wait_empty(p);
        detail::mbarrier_arrive_expect(ring.full(p), (active_ ? 4 : 2) * base::box_bytes);
        for (int r = 0; r < Br; r += box, to += base::box_bytes) {
          if (!active_) continue;
          if (scores) this->template load_tile<false>(to, all.q, in.q, first_ + r, column, ring.full(p));
          else this->template load_tile<false>(to, all.grad_o, all.backward.grad_o, first_ + r, column, ring.full(p));
        }
        for (int n = this->group_rank; n < keys / box; n += all.groups) {
          uint32 const there = to + uint32(n * base::box_bytes);
          int const j = from_ + n * box;
          if (scores) this->template load_tile<true>(there, all.k, in.k, j, column, ring.full(p));
          else this->template load_tile<true>(there, all.v, in.v, j, column, ring.full(p));
        }
      }
    }
  }
  __device__ __forceinline__ A* biases(ring_place p) const {
    return reinterpret_cast<A*>(this->shared_memory + base::numbers_at + p.buffer * base::numbers_bytes / 2);
  }
  /// Biases of the diagonals of each item: [key - query + Br - 1]. Called by a warp.
  __device__ __forceinline__ void load_numbers(item_range range) {
    ring_place p;
    for (index_t item = range.first; item < range.end; item += range.stride) {
      if (!set_item(item) || !active_) continue;
      number_ring.wait_empty(p);
      index_t const diagonal = in.chunk - Br + from_ - first_;
      for (int x = this->loader_lane(); x < Br + keys; x += warp_size) {
        index_t const d = diagonal + x;
        biases(p)[x] = d >= 0 && d < in.bias.extent[1] ? *in.bias.at(chunk_.head, d) : A(0);
      }
      detail::mbarrier_arrive(number_ring.full(p));
      number_ring.advance(p);
    }
  }

  __device__ __forceinline__ void compute(item_range range) {
    ring_place next, used, numbers;
    for (index_t item = range.first; item < range.end; item += range.stride) {
      if (!set_item(item)) continue;
      int const key_steps = divide_up(in.key_dim(), box), value_steps = divide_up(in.value_dim(), box);
      if (!active_) {
#pragma unroll 1  // rare
        for (int n = 0; n < key_steps + value_steps; n++) this->skip_stage(next, used);
        continue;
      }
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) row_[half] = this->statistics_of(this->position(half));
      float s[tiles][4], dp[tiles][4];
      multiply(s, key_steps, next, used, false);
      multiply(dp, value_steps, next, used, true);
      warpgroup.template wait_groups<0>();
      warpgroup.result(s);
      warpgroup.result(dp);
      this->release(used);
      if constexpr (Shape.bias) { number_ring.wait_full(numbers); }
      finish<0>(s, dp, biases(numbers));
      finish<1>(s, dp, biases(numbers));
      if constexpr (Shape.bias) {
        warp.sync();
        if (this->lane() == 0) detail::mbarrier_arrive(number_ring.empty(numbers));
        number_ring.advance(numbers);
      }
      if constexpr (Shape.bias) {
        if (all.backward.wants_biases()) store_diagonals(dp);
      }
      if constexpr (!softmax) {
        if (in.scale_by_count) scale_rows(dp);
      }
      if (all.backward.wants_values()) store(s, all.weights);
      if (all.backward.wants_keys() || all.backward.wants_queries()) store(dp, all.derivatives);
    }
  }
  /// c = the product of both sides of `steps` stages. `pending`: whether a stage from before is in use.
  __device__ __forceinline__ void multiply(float (&c)[tiles][4], int steps, ring_place& next, ring_place& used,
                                           bool pending) const {
    for (int n = 0; n < steps; n++, ring.advance(next)) {
      ring.wait_full(next);
      warpgroup.fence();
      uint32 const rows = this->stage(next), columns = rows + Br * wgmma_tile::line_bytes;
      TCNCA_UNROLL
      for (int d = 0; d < box; d += wgmma_tile::depth)
        warpgroup.template multiply<T, false, false>(c, wgmma_tile::of_rows(rows, Br, warpgroup_ * wgmma_tile::rows, d),
                                                     wgmma_tile::of_rows(columns, keys, 0, d), n > 0 || d > 0);
      warpgroup.commit();
      warpgroup.template wait_groups<1>();
      if (pending || n > 0) this->release(used);
    }
  }

  /// Products to weights, s, and gradients of scores, dp, for 64 of the keys.
  template <int Part>
  __device__ __forceinline__ void finish(float (&s)[tiles][4], float (&dp)[tiles][4],
                                         [[maybe_unused]] A const* numbers) const {
    constexpr int first = Part * base::key_tiles;
    int const from = from_ + Part * Bc, t = this->column();
    [[maybe_unused]] keep_mask mask{};
    if constexpr (Shape.dropout) { mask = this->dropout_mask(from, 0, Bc / M); }
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half), diagonal = Br - 1 - (i - first_) + Part * Bc + t;
      int const visible = (i < chunk_.last ? this->visible(chunk_, i) : 0) - from - t;  // of this lane's keys
      A const scale = softmax ? in.scale : this->scale(chunk_, i);
      TCNCA_UNROLL
      for (int n = 0; n < base::key_tiles; n++) {
        pack<A, 2> x = row_pair(s[first + n], half) * broadcast<2>(scale), g = row_pair(dp[first + n], half);
        if constexpr (Shape.bias) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, x.lane(e) + numbers[diagonal + 8 * n + e]);
        }
        pack<A, 2> weight, derivative, keep = broadcast<2>(A(1));
        if constexpr (softmax) {
          auto const exponent = x - broadcast<2>(row_[half].maximum) - broadcast<2>(row_[half].log_sum);
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) weight.set_lane(e, detail::exp_or_zero(exponent.lane(e)));
          derivative = weight;
        } else {
          auto const both = detail::attention_weight<Shape.function>(x);
          weight = both.value, derivative = both.derivative;
        }
        if constexpr (Shape.dropout) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) keep.set_lane(e, mask.keeps(half, n, e) ? in.dropout.keep_scale : A(0));
          weight = weight * keep, g = g * keep;
        }
        if constexpr (softmax) { g = g - broadcast<2>(row_[half].delta); }
        g = derivative * g;
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) {
          bool const seen = 8 * n + e < visible;
          s[first + n][2 * half + e] = seen ? weight.lane(e) : A(0);
          dp[first + n][2 * half + e] = seen ? g.lane(e) : A(0);
        }
      }
    }
  }
  /// Sums of the warp's rows along diagonals: number y is of key - query = y - (M - 1), both counted from the warp's
  /// first.
  __device__ __forceinline__ void store_diagonals(float const (&dp)[tiles][4]) const {
    constexpr int stride = base::row_stride, parts = keys / box;
    int const number = this->rank() / warp_size;
    A* const rows = reinterpret_cast<A*>(this->shared_memory + base::rows_at + number * base::warp_bytes);
    A sums[5] = {0, 0, 0, 0, 0};
    TCNCA_UNROLL
    for (int part = 0; part < parts; part++) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        TCNCA_UNROLL
        for (int n = 0; n < base::key_tiles; n++)
          tcnca::store<2>(rows + mma_fragment::c(this->lane(), 0).row * stride + 8 * n + this->column(),
                          row_pair(dp[part * base::key_tiles + n], half));
        warp.sync();
        TCNCA_UNROLL
        for (int m = 2 * part; m < 2 * part + 3; m++) {
          int const apart = this->lane() + m * warp_size - (M - 1) + 8 * half - box * part;  // column - row, of these
          for (int r = max_of(0, -apart); r < min_of(8, box - apart); r++) sums[m] += rows[r * stride + apart + r];
        }
        warp.sync();
      }
    }
    constexpr int diagonals = chunked_attention_wgmma_scratch::diagonals;
    A* const to =
        all.diagonals + all.scratch.diagonals_at(chunk_number_, block_row_, block_column_) + number * diagonals;
    TCNCA_UNROLL
    for (int m = 0; m < 5; m++)
      if (int const y = this->lane() + m * warp_size; y < diagonals) to[y] = sums[m];
  }
  __device__ __forceinline__ void scale_rows(float (&dp)[tiles][4]) const {
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      A const scale = this->scale(chunk_, this->position(half));
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n++) dp[n][2 * half] *= scale, dp[n][2 * half + 1] *= scale;
    }
  }
  __device__ __forceinline__ void store(float const (&x)[tiles][4], T* matrices) const {
    int const rows = all.scratch.rows;
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half);
      T* const to = i < rows ? matrices + chunk_number_ * all.scratch.elements() + index_t(i) * rows : nullptr;
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n += 4)
        this->store_tiles(to, from_ + 8 * n, rows, [&](int k) TCNCA_INLINE { return row_pair(x[n + k], half); });
    }
  }
};
#endif

}  // namespace tcnca
