// The generic forward pass: any element type, CPU and GPU. After FlashAttention: no matrix of size chunk x chunk is
// stored.
//
//   item      a block of Br queries of one chunk, and a tile of the value dimension
//   loop      over the blocks of Bc keys that a query of the block sees:
//               scores = K Q^T            register tiles
//               weights                   per pack of queries; softmax: running maximum and sum
//               O = rescale O + P V       per panel of V, register tiles
//   memory    score [Bc][Br], output [Br][output_row], bias, row statistics. One thread: query [key_dim][Br], key
//             [Bc][key_row], one panel of V. Many threads, all in shared memory: the panel of products.hpp
//   threads   each has a register tile of the scores and of a panel of the output; several share the weights of a pack
//             of queries, each for some keys
//   barriers  two for each panel of an operand; after the scores, after the weights, two inside softmax; before the
//             output is stored
//
// With Policy.bf16_products, operands of products are pairs of bf16, neighbouring terms of the sums; weights in place
// of the scores, rounded after the sums of softmax. The scale multiplies the scores.
#pragma once
#include "../block/agent.hpp"
#include "../block/online_softmax.hpp"
#include "forward_params.hpp"
#include "products.hpp"

namespace tcnca::inline TCNCA_TARGET {

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_forward_agent : detail::attention_products<Group, T, Shape, Policy> {
  using base = detail::attention_products<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tile, typename base::operand;
  using base::group, base::in, base::W, base::softmax, base::key_row, base::shared_products, base::in_pairs,
      base::terms;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int Br = Policy.query_block, Bc = Policy.key_block, panel = Policy.value_panel;
  // Threads that share the weights of a pack of queries, and the keys of each.
  static constexpr int shares = shared_products ? Policy.threads * W / Br : 1, share = Bc / shares;
  static_assert(Policy.valid_forward(), "tcnca::chunked_attention: a forward policy's blocks must be whole tiles");

  static_assert(!shared_products || base::fits(Br * (Bc + Policy.value_tile + 4) + Bc),
                "tcnca::chunked_attention: a forward policy's blocks must fit in its shared memory");

  params_type const& params;
  A* shared_memory;
  A* global_scratch;

  TCNCA_HOST_DEVICE chunked_attention_forward_agent(Group g, params_type const& p, A* shared, A* scratch)
      : base{g, p.in}, params(p), shared_memory(shared), global_scratch(scratch) {}

  TCNCA_HOST_DEVICE static constexpr index_t query_blocks(params_type const& p) {
    return divide_up(p.in.rows(), index_t(Br));
  }
  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(Policy.value_tile));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.all_chunks() * query_blocks(p) * value_tiles(p);
  }
  static group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = p.plan.shared_memory * sizeof(A),
            .global_scratch_bytes = p.plan.global_scratch * sizeof(A)};
  }

  static chunked_attention_forward_plan plan_for(int key_dim, int value_dim) {
    chunked_attention_forward_plan plan;
    memory_planner<A> memory{Policy.shared_memory_bytes};
    plan.output_row = round_up(min_of(value_dim, Policy.value_tile), panel) + W;
    plan.statistics = memory.place(size_t((in_pairs ? 4 : 3) * Br));
    plan.score = memory.place(size_t(Bc) * Br);
    if (Shape.bias) plan.bias = memory.place(size_t(Bc + Br));
    if constexpr (shared_products) {
      plan.output_row = Policy.value_tile;
      plan.panel = memory.place(memory_space::shared, size_t(base::panel_elements));
      plan.output = memory.place(memory_space::shared, size_t(Br) * Policy.value_tile);
      plan.shared_memory = memory.shared_memory;
      return plan;
    }
    plan.value = memory.place(size_t(Bc / terms) * panel);
    plan.query = memory.place(size_t(divide_up(key_dim, terms)) * Br);
    plan.output = memory.place(size_t(Br) * size_t(plan.output_row));
    plan.key = memory.place(size_t(Bc) * key_row);
    plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
    return plan;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const blocks = query_blocks(params), tiles = value_tiles(params);
    int const value_tile = int(item % tiles);
    // The last queries of a causal chunk see the most keys. They come first, so that the groups finish at about the
    // same time.
    first_ = int(blocks - 1 - item / tiles % blocks) * Br;
    chunk_ = this->chunk_of(item / tiles / blocks);
    begin_ = max_of(first_, chunk_.first), end_ = min_of(first_ + Br, this->query_end(chunk_));
    column_ = value_tile * Policy.value_tile;
    columns_ = min_of(Policy.value_tile, in.value_dim() - column_);
    if constexpr (Shape.head_lengths) {
      for (int i = max_of(begin_, end_); i < min_of(first_ + Br, chunk_.last); i++) store_no_output(i);
    }
    if (begin_ >= end_) return;
    process_key_blocks();
  }

 private:
  detail::attention_chunk chunk_;
  int first_;             // position of the block's first row
  int begin_, end_;       // positions of the queries that exist: [begin_, end_)
  int column_, columns_;  // first column of the value tile, and their number

  TCNCA_HOST_DEVICE A* at(memory_place const& m) const {
    if constexpr (shared_products) { return shared_memory + m.offset; }
    return (m.global_scratch ? global_scratch : shared_memory) + m.offset;
  }
  TCNCA_HOST_DEVICE operand* operands(memory_place const& m) const { return reinterpret_cast<operand*>(at(m)); }
  // Per row of the block: maximum and sum of softmax, the factor for the output (finally: of the normalization), and,
  // with in_pairs, of the scores.
  TCNCA_HOST_DEVICE A* row_maximum() const { return at(params.plan.statistics); }
  TCNCA_HOST_DEVICE A* row_sum() const { return row_maximum() + Br; }
  TCNCA_HOST_DEVICE A* row_factor() const { return row_maximum() + 2 * Br; }
  TCNCA_HOST_DEVICE A* row_scale() const { return row_maximum() + 3 * Br; }
  TCNCA_HOST_DEVICE int rows() const { return end_ - first_; }

  TCNCA_HOST_DEVICE void process_key_blocks() {
    clear_statistics();
    if constexpr (!shared_products) { load_queries(); }
    int const visible = this->visible(chunk_, end_ - 1), begin = first_key();
    for (int from = begin; from < visible; from += Bc) {
      int const count = min_of(Bc, visible - from);
      if constexpr (Shape.bias) { load_bias(from); }
      if constexpr (shared_products) {
        process_key_block_together(from, count);
      } else {
        process_key_block(from, count);
      }
    }
    // After clear_statistics() or the last sums of the output. Softmax has a barrier after its sums in store_output().
    if (!softmax || visible <= begin) group.sync();
    store_output(visible > begin);
    group.sync();  // the next item reuses the memory
  }

  /// One thread computes all.
  TCNCA_HOST_DEVICE void process_key_block(int from, int count) {
    this->load_rows(operands(params.plan.key), key_row, count, Policy.tile_rows, in.key_dim(),
                    [&](int r) TCNCA_INLINE { return this->key(chunk_, from + r); });
    compute_scores(from, count);
    for (int i = 0; i < round_up(rows(), Policy.tile_rows); i += W) compute_weights(from, count, i, 0);
    for (int c = 0; c < columns_; c += panel) {
      this->load_panels(operands(params.plan.value), Bc / terms, count, column_ + c,
                        column_ + min_of(c + panel, columns_), in.value_dim(),
                        [&](int r) TCNCA_INLINE { return this->values(chunk_, from + r); });
      accumulate_output(from, count, c);
    }
  }

  /// Each thread has one register tile of the scores, shares the weights of a pack of queries, and has one register
  /// tile of each panel of the output.
  TCNCA_HOST_DEVICE void process_key_block_together(int from, int count) {
    A* const panel_memory = at(params.plan.panel);
    auto const key = [&](int r) TCNCA_INLINE { return this->key(chunk_, from + min_of(r, count - 1)); };
    auto const query = [&](int r) TCNCA_INLINE { return this->query(chunk_, existing(r)); };
    auto const scale = [&](int r) TCNCA_INLINE { return this->scale(chunk_, existing(r)); };
    tile t;
    t.clear();
    tile_place const s = place_of_tile<tile, Bc, Br>(group);
    bool const active = s.row < count && s.column < rows() && !all_masked(from + s.row, first_ + s.column);
    this->template multiply_rows<Bc, Br, true>(t, s, active, panel_memory, in.key_dim(), key, query, scale);
    if (active) t.store(at(params.plan.score) + s.row * Br + s.column, Br);
    group.sync();
    compute_weights(from, count, group.rank() % (Br / W) * W, group.rank() / (Br / W));
    group.sync();
    tile_place const p = place_of_tile<tile, Br, panel>(group);
    for (int c = 0; c < columns_; c += panel) {
      bool const exists = p.row < rows() && c + p.column < columns_;
      A* const output = at(params.plan.output) + p.row * Policy.value_tile + c + p.column;
      if (exists) load_output(t, output, Policy.value_tile, from, p.row);
      this->template multiply_columns<panel>(
          panel_memory, 0, count, column_ + c, in.value_dim(),
          [&](int r) TCNCA_INLINE { return this->values(chunk_, from + r); }, detail::unscaled_rows{},
          [&](A const* values, int k, int n) TCNCA_INLINE {
            if (exists)
              add_values<panel>(t, at(params.plan.score) + k * Br + p.row, values + p.column, n, p.row, from + k);
          });
      if (exists) t.store(output, Policy.value_tile);
    }
  }

  /// The query of row r, of the first or the last one if that does not exist.
  TCNCA_HOST_DEVICE int existing(int r) const { return max_of(begin_, min_of(first_ + r, end_ - 1)); }
  /// The first key that is read: that of a draw of dropout.
  TCNCA_HOST_DEVICE int first_key() const { return this->hidden(begin_) / 4 * 4; }

  /// Empty rows of softmax.
  TCNCA_HOST_DEVICE void clear_statistics() const {
    if constexpr (softmax) {
      for (int r = group.rank(); r < Br; r += group.size())
        row_maximum()[r] = -detail::infinity<A>(), row_sum()[r] = row_factor()[r] = A(0);
    }
  }

  /// The queries, scaled and transposed, so that a pack holds one element of W neighbouring queries.
  TCNCA_HOST_DEVICE void load_queries() {
    this->load_transposed(
        operands(params.plan.query), Br, rows(), in.key_dim(),
        [&](int r) TCNCA_INLINE { return first_ + r >= begin_ ? this->query(chunk_, first_ + r) : nullptr; },
        [&](int r) TCNCA_INLINE { return this->scale(chunk_, first_ + r); }, row_scale());
  }

  /// The biases of the block's diagonals in descending order, so that those of one key and neighbouring queries are
  /// contiguous.
  TCNCA_HOST_DEVICE void load_bias(int from) const {
    A* const to = at(params.plan.bias);
    index_t const last = in.chunk - 1 + from + Bc - 1 - first_;
    for (int x = group.rank(); x < Bc + Br; x += group.size())
      to[x] = last - x >= 0 && last - x < in.bias.extent[1] ? *in.bias.at(chunk_.head, last - x) : A(0);
  }

  /// Whether the queries of a tile, the first of which is i, do not see its keys from j on.
  TCNCA_HOST_DEVICE bool all_masked(int j, int i) const {
    return (Shape.causal && j >= i + tile::extent) || (Shape.window && j + tile::rows <= this->hidden(i));
  }

  /// score[key][query] of the keys [from, from + count), without biases.
  TCNCA_HOST_DEVICE void compute_scores(int from, int count) const {
    operand const *const key = operands(params.plan.key), *const query = operands(params.plan.query);
    A* const score = at(params.plan.score);
    for_each_tile<tile>(group, count, rows(), [&](int j, int i) TCNCA_INLINE {
      if (all_masked(from + j, first_ + i)) return;
      tile t;
      t.clear();
      t.template add<key_row, 1, Br>(key + j * key_row, query + i, 0, in.key_dim());
      if constexpr (in_pairs) { t.scale_columns(row_scale() + i); }
      t.store(score + j * Br + i, Br);
    });
  }

  /// Replaces the scores of the pack of queries i by their weights: those of a share of the keys.
  TCNCA_HOST_DEVICE void compute_weights(int from, int all, int i, int part) const {
    bool const masked = (Shape.causal && from + all > first_ + 1) || (Shape.window && from < this->hidden(end_ - 1));
    [[maybe_unused]] A const distance_factor = this->distance_factor(chunk_);
    A* const score = at(params.plan.score) + i;
    int const part_begin = shared_products ? part * share : 0,
              part_end = shared_products ? min_of(all, part_begin + share) : all;
    bool const exists = i < rows();
    if (!exists) {  // past the last query: the remaining rows of the register tile get zero weights
      for (int j = part_begin; j < part_end; j++) store<W>(score + j * Br, broadcast<W>(A(0)));
      if constexpr (!shared_products) { return; }
    }
    // Keys before `begin` and from `count` on are masked for the whole pack; key from + j is masked for the queries
    // below it and for those that it is too far from.
    int const count = !exists ? part_begin : Shape.causal ? min_of(part_end, first_ + i + W - from) : part_end;
    int const begin = Shape.window ? max_of(part_begin, this->hidden(first_ + i) - from) : part_begin;
    value positions = broadcast<W>(A(0));
    TCNCA_UNROLL
    for (int w = 0; w < W; w++) positions.set_lane(w, A(first_ + i + w) + A(0.5));
    auto const select_visible = [&](int j, value s, value otherwise) TCNCA_INLINE {
      if (!masked) return s;
      value const distance = positions - broadcast<W>(A(from + j));
      if constexpr (Shape.window) { s = select_positive(broadcast<W>(A(in.window)) - distance, s, otherwise); }
      return select_positive(distance, s, otherwise);
    };
    auto const biased_score = [&](int j) TCNCA_INLINE {
      value s = load<W>(const_cast<A const*>(score + j * Br));
      if constexpr (Shape.bias) { s = s + load_anywhere<W>(at(params.plan.bias) + Bc - 1 - j + i); }
      if constexpr (Shape.alibi) {
        s = base::add_alibi(s, distance_factor, positions - broadcast<W>(A(from + j) + A(0.5)));
      }
      return s;
    };
    value const zero = broadcast<W>(A(0));
    if constexpr (softmax) {
      detail::softmax_row<value> row{load<W>(const_cast<A const*>(row_maximum() + i)),
                                     load<W>(const_cast<A const*>(row_sum() + i))};
      value maximum = row.maximum;
      for (int j = begin; j < count; j++) {
        value const s = biased_score(j);
        if constexpr (Shape.bias || Shape.alibi) { store<W>(score + j * Br, s); }
        maximum = max_or_second(select_visible(j, s, row.maximum), maximum);
      }
      [[maybe_unused]] A* const partial = at(params.plan.panel);
      if constexpr (shared_products) {
        maximum =
            reduce_parts(partial, maximum, i, part, [](value a, value b) TCNCA_INLINE { return max_or_second(a, b); });
      }
      value const factor = row.rescale(maximum);
      if (shared_products && part > 0) row.sum = zero;  // the first one adds to the sum so far
      for (int j = begin; j < count; j++) {
        value const p = select_visible(j, row.weight(load<W>(const_cast<A const*>(score + j * Br))), zero);
        row.sum = row.sum + p;
        store<W>(score + j * Br, p);
      }
      if constexpr (shared_products) {
        row.sum =
            reduce_parts(partial + shares * Br, row.sum, i, part, [](value a, value b) TCNCA_INLINE { return a + b; });
      }
      if (part == 0)
        store<W>(row_maximum() + i, row.maximum), store<W>(row_sum() + i, row.sum), store<W>(row_factor() + i, factor);
    } else {
      for (int j = begin; j < count; j++)
        store<W>(score + j * Br,
                 select_visible(j, detail::attention_weight<Shape.function>(biased_score(j)).value, zero));
    }
    if constexpr (Shape.dropout) { this->apply_dropout(chunk_, score, Br, first_ + i, from, begin, count); }
    if constexpr (in_pairs) { this->make_row_pairs(score, Br, begin, count); }
  }
  /// f over the parts of the keys in their order. partial: where they meet.
  template <class F>
  TCNCA_HOST_DEVICE value reduce_parts(A* partial, value x, int i, int part, F f) const {
    static_assert(2 * shares * Br <= base::panel_elements);
    store<W>(partial + part * Br + i, x);
    group.sync();
    x = load<W>(const_cast<A const*>(partial + i));
    for (int s = 1; s < shares; s++) x = f(x, load<W>(const_cast<A const*>(partial + s * Br + i)));
    return x;
  }

  /// The sums of the output before the block of keys `from`, rescaled.
  TCNCA_HOST_DEVICE void load_output(tile& t, A const* output, int stride, int from, int i) const {
    if (from == first_key()) t.clear();
    else if constexpr (softmax) {
      A const* const factor = row_factor();
      t.load(output, stride, [&](int m, value v) TCNCA_INLINE { return v * broadcast<W>(factor[i + m]); });
    } else {
      t.load(output, stride, [](int, value v) TCNCA_INLINE { return v; });
    }
  }
  /// Adds the products of the weights of the queries from i on and the values of the keys [from, from + count), whose
  /// rows are ValueRow elements apart.
  template <int ValueRow>
  TCNCA_HOST_DEVICE void add_values(tile& t, operand const* weight, operand const* values, int count, int i,
                                    int from) const {
    if constexpr (Shape.window) {
      t.template add_band<1, Br, ValueRow>(weight, values, count, first_ + i + 1 - in.window - from, first_ + i - from);
    } else if constexpr (Shape.causal) {
      t.template add_below<1, Br, ValueRow>(weight, values, count, first_ + i - from);
    } else {
      t.template add<1, Br, ValueRow>(weight, values, 0, count);
    }
  }

  /// Adds the products of the weights with a panel of the values, which begins at `column` of the value tile.
  TCNCA_HOST_DEVICE void accumulate_output(int from, int count, int column) const {
    operand const *const weight = operands(params.plan.score), *const values = operands(params.plan.value);
    A* const output = at(params.plan.output) + column;
    int const stride = params.plan.output_row;
    for_each_tile<tile>(group, rows(), min_of(panel, columns_ - column), [&](int i, int c) TCNCA_INLINE {
      tile t;
      load_output(t, output + i * stride + c, stride, from, i);
      add_values<tile::columns>(t, weight + i, values + c * (Bc / terms), count, i, from);
      t.store(output + i * stride + c, stride);
    });
  }

  /// The output of a query that does not attend.
  TCNCA_HOST_DEVICE void store_no_output(int i) const {
    T* const to = params.o.at(chunk_.batch, chunk_.head, this->sequence_index(chunk_, i), 0);
    for (int c = group.rank() * W; c < columns_; c += group.size() * W)
      base::store(to, column_ + c, column_ + columns_, broadcast<W>(A(0)));
    if constexpr (softmax) {
      if (params.lse.present() && column_ == 0 && group.rank() == 0)
        detail::store_lse(params.lse, chunk_.batch, chunk_.head, this->sequence_index(chunk_, i), A(0), A(0));
    }
  }

  /// The normalized output, zeros if no key is visible, and the statistics.
  TCNCA_HOST_DEVICE void store_output(bool any_visible) const {
    if constexpr (softmax) {
      for (int i = begin_ - first_ + group.rank(); i < rows(); i += group.size()) {
        row_factor()[i] = detail::inverse_or_zero(row_sum()[i]);
        if (params.lse.present() && column_ == 0)
          detail::store_lse(params.lse, chunk_.batch, chunk_.head, this->sequence_index(chunk_, first_ + i),
                            row_maximum()[i], row_sum()[i]);
      }
      group.sync();
    }
    int const packs = divide_up(columns_, W), offset = begin_ - first_;
    for_each_pair(group, end_ - begin_, packs, [&](int r, int n) TCNCA_INLINE {
      int const i = offset + r, c = n * W;
      value v = broadcast<W>(A(0));
      if (any_visible) {
        v = load<W>(const_cast<A const*>(at(params.plan.output) + i * params.plan.output_row + c));
        if constexpr (softmax) { v = detail::normalized(v, row_factor()[i]); }
      }
      T* const to = params.o.at(chunk_.batch, chunk_.head, this->sequence_index(chunk_, first_ + i), 0);
      base::store(to, column_ + c, column_ + columns_, v);
    });
  }
};

}  // namespace tcnca
