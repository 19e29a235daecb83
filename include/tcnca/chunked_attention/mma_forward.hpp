// The forward pass on tensor cores, for 16-bit elements: a group takes a block of queries past its keys, each warp 16 of the queries. Scores,
// weights and the output stay in registers, keys and values come to fast memory while the block before them is worked on.
// After FlashAttention-2 (arXiv 2307.08691), with the output's columns shared out to items, as values are much wider than keys.
#pragma once
#include "forward.hpp"
#include "mma.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The forward pass of one item: a block of 16 queries a warp, and a tile of the value dimension; the same results as the generic agent, but
/// that weights are rounded to T before they meet the values (relu2 in fp16: a weight above 65504 is infinite).
/// Fast memory: the queries; one or two stages of a block of keys, a tile of its values and the biases of its diagonals. Rows of T are swizzled.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_mma_forward_agent : detail::attention_warps<Group, T, Shape, Policy> {
  using base = detail::attention_warps<Group, T, Shape, Policy>;
  using typename base::A, typename base::scores, typename base::weights;
  using base::group, base::in, base::warp, base::softmax, base::chunk_, base::first_, base::first_row_, base::W,
      base::M, base::R, base::C, base::line, base::key_tiles, base::key_row, base::infinity, base::max_or_number,
      base::power, base::of_row, base::clear;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int columns = Policy.value_tile, tiles = columns / mma_fragment::columns;

  params_type const& params;
  T* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_mma_forward_agent(Group g, params_type const& p, A* shared_memory, A*)
      : base(g, p.in), params(p), shared_memory(reinterpret_cast<T*>(shared_memory)) {}

  TCNCA_HOST_DEVICE static constexpr index_t query_blocks(params_type const& p) {
    return divide_up(p.in.chunk, index_t(R));
  }
  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.chunks() * query_blocks(p) * value_tiles(p);
  }

  TCNCA_HOST_DEVICE static constexpr int stage_elements(int key_dim) { return C * (key_row(key_dim) + columns); }
  TCNCA_HOST_DEVICE static constexpr int shared_memory_elements(int key_dim, int stages) {
    return R * key_row(key_dim) +
           stages * (stage_elements(key_dim) + (Shape.bias ? (R + C) * int(sizeof(A) / sizeof(T)) : 0));
  }
  /// Two, where they fit.
  TCNCA_HOST_DEVICE static constexpr int stages(int key_dim) {
    return size_t(shared_memory_elements(key_dim, 2)) * sizeof(T) <= Policy.shared_memory_bytes ? 2 : 1;
  }
  static chunked_attention_forward_plan plan_for(int key_dim, int) {
    chunked_attention_forward_plan plan;
    plan.shared_memory = size_t(shared_memory_elements(key_dim, stages(key_dim))) * sizeof(T) / sizeof(A);
    return plan;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const blocks = query_blocks(params);
    int const value_tile = int(item % value_tiles(params));
    // The last queries of a causal chunk see the most keys: they come first, so that the threads end together.
    this->begin_rows(int(blocks - 1 - item / value_tiles(params) % blocks) * R);
    chunk_ = this->chunk_of(item / value_tiles(params) / blocks);
    begin_ = max_of(first_, chunk_.first), end_ = min_of(first_ + R, chunk_.last);
    if (begin_ >= end_) return;
    column_ = value_tile * columns;
    columns_ = min_of(columns, in.value_dim() - column_);
    walk();
  }

 private:
  int begin_, end_;       // of the queries that exist
  int column_, columns_;  // of the values

  /// The output of a warp's queries: of fragments c, one for 8 columns; running maximum and sum of the rows g and g + 8 (sums: this lane's part).
  struct accumulators {
    detail::array<float[4], tiles> o;
    float most[2], sum[2];
  };

  TCNCA_HOST_DEVICE T* queries() const { return shared_memory; }
  TCNCA_HOST_DEVICE T* keys(int stage) const {
    return shared_memory + R * key_row(in.key_dim()) + stage * stage_elements(in.key_dim());
  }
  TCNCA_HOST_DEVICE T* values_of(int stage) const { return keys(stage) + C * key_row(in.key_dim()); }
  TCNCA_HOST_DEVICE A* biases(int stage) const {
    return reinterpret_cast<A*>(keys(stages(in.key_dim()))) + stage * (R + C);
  }

  TCNCA_HOST_DEVICE void walk() {
    int const visible = this->visible(chunk_, end_ - 1), blocks = divide_up(visible, C),
              ahead = stages(in.key_dim()) - 1;
    // Keys that some query of this warp sees.
    int const last = min_of(first_row_ + M, end_) - 1;
    int const seen = last < max_of(begin_, first_row_) ? 0 : this->visible(chunk_, last);
    accumulators acc;
    clear(acc.o);
    acc.most[0] = acc.most[1] = -infinity(), acc.sum[0] = acc.sum[1] = 0;
    if (blocks > 0) {
      this->template load_rows<R>(
          queries(), key_row(in.key_dim()), round_up(in.key_dim(), 2 * M), 0, in.key_dim(), [&](int r) TCNCA_INLINE {
            return first_ + r >= begin_ && first_ + r < end_ ? this->query(chunk_, first_ + r) : nullptr;
          });
    }
    // One turn loads a block and works on the one before (two stages), or loads a block and works on it.
    for (int n = -ahead; n < blocks; n++) {
      int const from = n * C, stage = n & ahead;
      warp.wait();
      group.sync();  // this block has come, and the one before is done with
      if (n + ahead < blocks) load_stage((n + ahead) & ahead, from + ahead * C, visible);
      if (n < 0) continue;
      if (ahead == 0) {
        warp.wait();
        group.sync();
      }
      int const steps = min_of(C / M, divide_up(max_of(0, seen - from), M));
      if (steps > 0) {
        [[maybe_unused]] typename base::keep_mask keep{};
        if constexpr (Shape.dropout) { keep = this->draw(from, 0, steps); }
        scores s;
        clear(s);
        this->multiply_rows(s, queries(), keys(stage), key_row(in.key_dim()), in.key_dim(), 0, steps);
        weigh(s, acc, stage, from);
        if constexpr (Shape.dropout) { this->drop(s, keep); }
        weights p;
        this->narrow(p, s);
        this->template add_products<true>(acc.o, p, values_of(stage), columns, columns_, from, 0, steps);
      }
    }
    finish(acc);
    group.sync();  // the next item reuses the memory
  }

  /// The keys from `from` on, their values, and the biases of the diagonals, falling from the block's last query and first key.
  TCNCA_HOST_DEVICE void load_stage(int stage, int from, int visible) const {
    this->template load_rows<C>(
        keys(stage), key_row(in.key_dim()), round_up(in.key_dim(), 2 * M), 0, in.key_dim(),
        [&](int r) TCNCA_INLINE { return from + r < visible ? this->key(chunk_, from + r) : nullptr; });
    this->template load_rows<C>(
        values_of(stage), columns, round_up(columns_, line), column_, column_ + columns_,
        [&](int r) TCNCA_INLINE { return from + r < visible ? this->values(chunk_, from + r) : nullptr; });
    if constexpr (Shape.bias) {
      for (int x = group.rank(); x < R + C; x += Group::size()) {
        index_t const d = in.chunk - 1 + from - first_ + x - (R - 1);
        bool const present = d >= 0 && d < in.bias.extent[1];
        warp.copy_4(warp.place(biases(stage) + x), present ? in.bias.at(chunk_.head, d) : in.bias.data, present);
      }
    }
    warp.commit();
  }

  /// Scores to weights, with the running statistics of softmax.
  TCNCA_HOST_DEVICE void weigh(scores& s, accumulators& acc, int stage, int from) const {
    int const t = this->column();
    bool const masked = from + C > this->visible(chunk_, first_row_);
    A factor[2];
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half), end = this->visible(chunk_, i) - from - t;  // of this lane's keys
      A const scale = softmax ? in.scale : this->scale(chunk_, i);
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        pack<A, 2> x = of_row(s[n], half) * broadcast<2>(scale);
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) {
          if constexpr (Shape.bias) { x.set_lane(e, x.lane(e) + biases(stage)[R - 1 - (i - first_) + 8 * n + t + e]); }
          if constexpr (softmax) { x.set_lane(e, masked && 8 * n + e >= end ? -infinity() : x.lane(e)); }
        }
        if constexpr (!softmax) {
          x = detail::attention_weight<Shape.function>(x).value;
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, masked && 8 * n + e >= end ? 0.f : x.lane(e));
        }
        s[n][2 * half] = x.lane(0), s[n][2 * half + 1] = x.lane(1);
      }
      if constexpr (softmax) { factor[half] = normalize(s, acc, half); }
    }
    if constexpr (softmax) {
      if (warp.any(factor[0] != 1 || factor[1] != 1)) {  // soon the maxima are found, and this is rare
        TCNCA_UNROLL
        for (int n = 0; n < tiles; n++) {
          TCNCA_UNROLL
          for (int e = 0; e < 4; e++) acc.o[n][e] *= factor[e / 2];
        }
      }
    }
  }
  /// e^(score - maximum) for one of this lane's rows; gives what the sums so far are to be multiplied by.
  TCNCA_HOST_DEVICE A normalize(scores& s, accumulators& acc, int half) const {
    float most = acc.most[half];
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++) most = max_or_number(most, max_or_number(s[n][2 * half], s[n][2 * half + 1]));
    most = max_or_number(most, warp.exchange(most, 1));
    most = max_or_number(most, warp.exchange(most, 2));
    // With nothing seen yet, or only -infinity, any finite number will do.
    float const zero_point = most == -infinity() ? 0.f : most, factor = power(acc.most[half] - zero_point);
    float even = acc.sum[half] * factor, odd = 0;
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++) {
      even += s[n][2 * half] = power(s[n][2 * half] - zero_point);
      odd += s[n][2 * half + 1] = power(s[n][2 * half + 1] - zero_point);
    }
    acc.most[half] = most, acc.sum[half] = even + odd;
    return factor;
  }

  /// The output, normalised, and the statistics.
  TCNCA_HOST_DEVICE void finish(accumulators& acc) const {
    int const t = this->column();
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half);
      [[maybe_unused]] float total = 0, factor = 1;
      if constexpr (softmax) {
        total = acc.sum[half];
        total += warp.exchange(total, 1);
        total += warp.exchange(total, 2);
        factor = total == 0 ? 0.f : 1 / total;
      }
      if (i < begin_ || i >= end_) continue;
      index_t const at = chunk_.origin + i - in.position;
      if constexpr (softmax) {
        if (params.lse.present() && column_ == 0 && t == 0)
          detail::store_lse(params.lse, chunk_.batch, chunk_.head, at, acc.most[half], total);
      }
      T* const to = params.o.at(chunk_.batch, chunk_.head, at, 0) + column_ + t;
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
