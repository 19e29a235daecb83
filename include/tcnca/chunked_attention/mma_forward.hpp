// The forward pass on tensor cores (mma, sm_80), for 16-bit elements. After FlashAttention-2 (arXiv 2307.08691); the
// columns of the output are divided among items, because values are much wider than keys.
//
//   item      a block of Br queries of one chunk, 16 per warp, and a tile of the value dimension
//   loop      over the blocks of Bc keys that a query of the block sees: S = Q K^T, weights, O = rescale O + P V, all
//             in registers
//   memory    shared: the queries [Br][key_row]; one or two stages of keys [Bc][key_row], values [Bc][columns] and
//             biases of diagonals. Rows of T are swizzled
//   barriers  those of the pipeline: one per block of keys, two with one stage; one at the end
#pragma once
#include "mma_output.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The results are those of the generic agent, except that weights are rounded to T before they are multiplied by the
/// values (relu2 in fp16: a weight above 65504 is infinite).
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_mma_forward_agent : detail::attention_output_warps<Group, T, Shape, Policy> {
  using base = detail::attention_output_warps<Group, T, Shape, Policy>;
  using typename base::A, typename base::scores, typename base::weights, typename base::params_type,
      typename base::accumulators;
  using base::group, base::in, base::warp, base::softmax, base::chunk_, base::first_, base::first_row_, base::begin_,
      base::end_, base::column_, base::columns_, base::params, base::M, base::Br, base::Bc, base::line, base::key_row,
      base::columns;

  T* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_mma_forward_agent(Group g, params_type const& p, A* shared, A*)
      : base(g, p), shared_memory(reinterpret_cast<T*>(shared)) {}

  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.all_chunks() * base::query_blocks(p) * value_tiles(p);
  }

  TCNCA_HOST_DEVICE static constexpr int stage_bytes(int key_dim) {
    return Bc * (key_row(key_dim) + columns) * int(sizeof(T)) + (Shape.bias ? (Br + Bc) * int(sizeof(A)) : 0);
  }
  TCNCA_HOST_DEVICE static constexpr int stages(int key_dim) {
    return base::stages_that_fit(key_dim, stage_bytes(key_dim));
  }
  static group_memory memory(params_type const& p) {
    return base::memory_for(p.in.key_dim(), stage_bytes(p.in.key_dim()));
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    if (!this->set_query_block(item, value_tiles(params))) return;
    column_ = int(item % value_tiles(params)) * columns;
    columns_ = min_of(columns, in.value_dim() - column_);
    int const visible = Shape.head_lengths && begin_ >= end_ ? 0 : this->visible(chunk_, end_ - 1),
              row = key_row(in.key_dim());
    int const first = this->hidden(begin_) / M * M;  // key that is read
    // Keys that some query of this warp sees.
    int const last = min_of(first_row_ + M, end_) - 1;
    int const visible_to_warp = last < max_of(begin_, first_row_) ? 0 : this->visible(chunk_, last);
    accumulators acc;
    base::clear_accumulators(acc);
    if (visible > first)
      this->template load_rows<Br>(queries(), row, round_up(in.key_dim(), 2 * M), 0, in.key_dim(),
                                   [&](int r) TCNCA_INLINE { return this->query_row(r); });
    this->pipeline(
        divide_up(visible - first, Bc), stages(in.key_dim()),
        [&](int n, int stage) TCNCA_INLINE { load_stage(stage, first + n * Bc, visible); },
        [&](int n, int stage) TCNCA_INLINE {
          int const from = first + n * Bc, end = min_of(Bc / M, divide_up(max_of(0, visible_to_warp - from), M));
          int const begin = Shape.window ? max_of(0, (this->hidden(first_row_) - from) / M) : 0;
          if (end > begin) process_key_block(acc, stage, from, begin, end);
        });
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) this->store_row(acc, half, softmax ? this->row_sum(acc, half) : 0.f);
    group.sync();  // the next item reuses the memory
  }

 private:
  TCNCA_HOST_DEVICE T* queries() const { return shared_memory; }
  TCNCA_HOST_DEVICE T* keys(int stage) const {
    return shared_memory + (base::rows_bytes(in.key_dim()) + stage * stage_bytes(in.key_dim())) / int(sizeof(T));
  }
  TCNCA_HOST_DEVICE T* values_of(int stage) const { return keys(stage) + Bc * key_row(in.key_dim()); }
  TCNCA_HOST_DEVICE A* biases(int stage) const { return reinterpret_cast<A*>(values_of(stage) + Bc * columns); }

  /// The keys from `from` on, their values, and the biases of the block's diagonals.
  TCNCA_HOST_DEVICE void load_stage(int stage, int from, int visible) const {
    this->template load_rows<Bc>(
        keys(stage), key_row(in.key_dim()), round_up(in.key_dim(), 2 * M), 0, in.key_dim(),
        [&](int r) TCNCA_INLINE { return from + r < visible ? this->key(chunk_, from + r) : nullptr; });
    this->template load_rows<Bc>(
        values_of(stage), columns, round_up(columns_, line), column_, column_ + columns_,
        [&](int r) TCNCA_INLINE { return from + r < visible ? this->values(chunk_, from + r) : nullptr; });
    if constexpr (Shape.bias) { this->load_biases(biases(stage), from); }
    warp.commit();
  }

  /// The steps [begin, end) of 16 keys of the block at `from`.
  TCNCA_HOST_DEVICE void process_key_block(accumulators& acc, int stage, int from, int begin, int end) const {
    [[maybe_unused]] typename base::keep_mask mask{};
    if constexpr (Shape.dropout) { mask = this->dropout_mask(from, begin, end); }
    scores s;
    base::clear(s);
    this->multiply_rows(s, queries(), keys(stage), key_row(in.key_dim()), in.key_dim(), begin, end);
    this->finish_scores(s, biases(stage), from);
    if constexpr (softmax) {
      float maximum[2];
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) maximum[half] = this->row_maximum(s, half, acc.row[half].maximum);
      this->rescale(acc.output, base::apply_maxima(s, acc.row, maximum));
    }
    if constexpr (Shape.dropout) { this->apply_dropout(s, mask); }
    weights p;
    base::round_weights(p, s);
    this->template add_products<true>(acc.output, p, values_of(stage), columns, columns_, from, begin, end);
  }
};

}  // namespace tcnca
