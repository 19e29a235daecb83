// One group takes a block of queries of one chunk past its keys, block by block: scores, their weights (softmax on the way, with a running
// maximum and sum a query), products with the values. Nothing of size chunk x chunk exists.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Where a group of a forward pass keeps its blocks.
struct chunked_attention_forward_plan {
  memory_place query, key, score, value, output, bias, statistics;
  int output_row = 0;                            // elements from a row of the output block to the next
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// What a forward pass is given; the same for all groups.
template <element T>
struct chunked_attention_forward_params {
  chunked_attention_inputs<T> in;
  tensor_view<T, 4> o;
  tensor_view<accumulate_t<T>, 4> lse;
  chunked_attention_forward_plan plan = {};
};

/// The forward pass of one item: a block of queries and a tile of the value dimension.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_forward_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tile;
  using base::group, base::in, base::W, base::softmax, base::key_row;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int M = Policy.tile_rows, R = Policy.queries, C = Policy.keys, panel = Policy.panel;
  static_assert(R % M == 0 && R % tile::columns == 0 && C % M == 0 && C % 4 == 0 && panel % tile::columns == 0 &&
                    Policy.value_tile % panel == 0,
                "tcnca::chunked_attention: a forward policy's blocks must be whole tiles");

  params_type const& params;
  A* shared_memory;
  A* global_scratch;

  TCNCA_HOST_DEVICE chunked_attention_forward_agent(Group g, params_type const& p, A* shared_memory, A* global_scratch)
      : base{g, p.in}, params(p), shared_memory(shared_memory), global_scratch(global_scratch) {}

  TCNCA_HOST_DEVICE static constexpr index_t query_blocks(params_type const& p) {
    return divide_up(p.in.rows(), index_t(R));
  }
  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(Policy.value_tile));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.chunks() * query_blocks(p) * value_tiles(p);
  }

  static chunked_attention_forward_plan plan_for(int key_dim, int value_dim) {
    chunked_attention_forward_plan plan;
    memory_planner<A> memory{Policy.shared_memory_bytes};
    plan.output_row = round_up(min_of(value_dim, Policy.value_tile), panel) + W;
    plan.statistics = memory.place(size_t(3 * R));
    plan.score = memory.place(size_t(C) * R);
    if (Shape.bias) plan.bias = memory.place(size_t(C + R));
    plan.value = memory.place(size_t(C) * panel);
    plan.query = memory.place(size_t(key_dim) * R);
    plan.output = memory.place(size_t(R) * size_t(plan.output_row));
    plan.key = memory.place(size_t(C) * key_row);
    plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
    return plan;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    index_t const blocks = query_blocks(params), tiles = value_tiles(params);
    int const value_tile = int(item % tiles);
    // The last queries of a causal chunk see the most keys: they come first, so that the threads end together.
    int const first = int(blocks - 1 - item / tiles % blocks) * R;
    chunk_ = this->chunk_of(item / tiles / blocks);
    begin_ = max_of(first, chunk_.first), end_ = min_of(first + R, chunk_.last);
    if (begin_ >= end_) return;
    first_ = first;
    column_ = value_tile * Policy.value_tile;
    columns_ = min_of(Policy.value_tile, in.value_dim() - column_);
    walk();
  }

 private:
  detail::attention_chunk chunk_;
  int first_;             // position of the block's first row
  int begin_, end_;       // of the queries that exist
  int column_, columns_;  // of the values

  TCNCA_HOST_DEVICE A* at(memory_place const& m) const {
    return (m.global_scratch ? global_scratch : shared_memory) + m.offset;
  }
  TCNCA_HOST_DEVICE A* maximum() const { return at(params.plan.statistics); }
  TCNCA_HOST_DEVICE A* sum() const { return maximum() + R; }
  TCNCA_HOST_DEVICE A* rescale() const { return maximum() + 2 * R; }
  static constexpr A lowest = sizeof(A) == 4 ? A(-3.4028234663852886e38) : A(-1.7976931348623157e308);
  TCNCA_HOST_DEVICE int rows() const { return end_ - first_; }

  TCNCA_HOST_DEVICE void walk() {
    start();
    int const visible = this->visible(chunk_, end_ - 1);
    for (int from = 0; from < visible; from += C) {
      int const count = min_of(C, visible - from);
      this->load_rows(at(params.plan.key), key_row, count, M, in.key_dim(),
                      [&](int r) TCNCA_INLINE { return this->key(chunk_, from + r); });
      if constexpr (Shape.bias) { load_bias(from); }
      group.sync();
      score(from, count);
      group.sync();
      weigh(from, count);
      for (int c = 0; c < columns_; c += panel) {
        this->load_panels(at(params.plan.value), C, count, column_ + c, column_ + min_of(c + panel, columns_),
                          in.value_dim(), [&](int r) TCNCA_INLINE { return this->values(chunk_, from + r); });
        group.sync();
        accumulate(from, count, c);
        group.sync();
      }
    }
    if (visible == 0) group.sync();  // after start()
    finish(visible > 0);
    group.sync();  // the next item reuses the memory
  }

  /// The queries, scaled and transposed: a pack is one element of neighbouring queries.
  TCNCA_HOST_DEVICE void start() {
    this->load_transposed(
        at(params.plan.query), R, rows(), in.key_dim(),
        [&](int r) TCNCA_INLINE { return first_ + r >= begin_ ? this->query(chunk_, first_ + r) : nullptr; },
        [&](int r) TCNCA_INLINE { return this->scale(chunk_, first_ + r); });
    if constexpr (softmax) {
      for (int r = group.rank(); r < R; r += group.size())
        maximum()[r] = -detail::infinity<A>(), sum()[r] = rescale()[r] = A(0);
    }
  }

  /// The biases of the block's diagonals, falling, so that neighbouring queries find theirs side by side.
  TCNCA_HOST_DEVICE void load_bias(int from) const {
    A* const to = at(params.plan.bias);
    index_t const top = in.chunk - 1 + from + C - 1 - first_;
    for (int x = group.rank(); x < C + R; x += group.size())
      to[x] = top - x >= 0 && top - x < in.bias.extent[1] ? *in.bias.at(chunk_.head, top - x) : A(0);
  }

  /// score[key][query] of the block.
  TCNCA_HOST_DEVICE void score(int from, int count) const {
    A const *const key = at(params.plan.key), *const query = at(params.plan.query);
    A* const score = at(params.plan.score);
    for_each_tile<tile>(group, count, rows(), [&](int j, int i) TCNCA_INLINE {
      if (Shape.causal && from + j >= first_ + i + tile::columns) return;  // masked
      tile t;
      t.clear();
      t.template add<key_row, 1, R>(key + j * key_row, query + i, 0, in.key_dim());
      t.store(score + j * R + i, R);
    });
  }

  /// Scores to weights, a pack of queries at a time.
  TCNCA_HOST_DEVICE void weigh(int from, int all) const {
    bool const masked = Shape.causal && from + all > first_ + 1;
    for (int i = group.rank() * W; i < round_up(rows(), M); i += group.size() * W) {
      A* const score = at(params.plan.score) + i;
      if (i >= rows()) {  // past the last query: the tile's remaining rows get zero weights
        for (int j = 0; j < all; j++) store<W>(score + j * R, broadcast<W>(A(0)));
        continue;
      }
      int const count =
          Shape.causal ? min_of(all, first_ + i + W - from) : all;  // later keys are masked for all of the pack
      value numbers = broadcast<W>(A(0));                           // key j is masked for the queries below it
      TCNCA_UNROLL
      for (int w = 0; w < W; w++) numbers.set_lane(w, A(first_ + i + w) + A(0.5));
      auto const visible = [&](int j, value s, value otherwise) TCNCA_INLINE {
        return masked ? select_positive(numbers - broadcast<W>(A(from + j)), s, otherwise) : s;
      };
      auto const biased = [&](int j) TCNCA_INLINE {
        value s = load<W>(const_cast<A const*>(score + j * R));
        if constexpr (Shape.bias) { s = s + load_anywhere<W>(at(params.plan.bias) + C - 1 - j + i); }
        return s;
      };
      value const zero = broadcast<W>(A(0));
      if constexpr (softmax) {
        value const before = load<W>(const_cast<A const*>(maximum() + i));
        value most = before;
        for (int j = 0; j < count; j++) {
          value const s = biased(j);
          if constexpr (Shape.bias) { store<W>(score + j * R, s); }
          most = max_or_second(visible(j, s, before), most);
        }
        // With nothing seen yet, or only -infinity, any finite number will do.
        value const zero_point = max_or_second(most, broadcast<W>(lowest));
        value const factor = detail::exp_or_zero(before - zero_point);
        value total = load<W>(const_cast<A const*>(sum() + i)) * factor;
        for (int j = 0; j < count; j++) {
          value const p =
              visible(j, detail::exp_or_zero(load<W>(const_cast<A const*>(score + j * R)) - zero_point), zero);
          total = total + p;
          store<W>(score + j * R, p);
        }
        store<W>(maximum() + i, most), store<W>(sum() + i, total), store<W>(rescale() + i, factor);
      } else {
        for (int j = 0; j < count; j++)
          store<W>(score + j * R, visible(j, detail::attention_weight<Shape.function>(biased(j)).value, zero));
      }
      if constexpr (Shape.dropout) { drop(score, first_ + i, from, count); }
    }
  }
  /// Dropout of the weights of the queries i, i + 1, ...
  TCNCA_HOST_DEVICE void drop(A* weight, int i, int from, int count) const {
    for (int j = 0; j < count; j += 4) {
      A keep[4][W];
      TCNCA_UNROLL
      for (int w = 0; w < W; w++) {
        auto const one = this->random_words(chunk_, i + w, from + j);
        TCNCA_UNROLL
        for (int n = 0; n < 4; n++) keep[n][w] = this->dropout(one.word[n]);
      }
      unroll<0, 4>([&](auto n) TCNCA_INLINE {
        A* const at = weight + (j + n) * R;
        if (j + n < count) {
          value kept = load<W>(const_cast<A const*>(at));
          TCNCA_UNROLL
          for (int w = 0; w < W; w++) kept.set_lane(w, kept.lane(w) * keep[n][w]);
          store<W>(at, kept);
        }
      });
    }
  }

  /// Adds the products with a panel of the values.
  TCNCA_HOST_DEVICE void accumulate(int from, int count, int column) const {
    A const *const weight = at(params.plan.score), *const values = at(params.plan.value), *const factor = rescale();
    A* const output = at(params.plan.output) + column;
    int const row = params.plan.output_row;
    for_each_tile<tile>(group, rows(), min_of(panel, columns_ - column), [&](int i, int c) TCNCA_INLINE {
      tile t;
      if (from == 0) t.clear();
      else if constexpr (softmax) {
        t.load(output + i * row + c, row, [&](int m, value v) TCNCA_INLINE { return v * broadcast<W>(factor[i + m]); });
      } else {
        t.load(output + i * row + c, row, [](int, value v) TCNCA_INLINE { return v; });
      }
      if constexpr (Shape.causal) {
        t.template add_below<1, R, tile::columns>(weight + i, values + c * C, count, first_ + i - from);
      } else {
        t.template add<1, R, tile::columns>(weight + i, values + c * C, 0, count);
      }
      t.store(output + i * row + c, row);
    });
  }

  /// The output, normalised, and the statistics.
  TCNCA_HOST_DEVICE void finish(bool any) const {
    if constexpr (softmax) {
      for (int i = begin_ - first_ + group.rank(); i < rows(); i += group.size()) {
        A const total = sum()[i], most = maximum()[i];
        rescale()[i] = detail::is_zero(total) ? A(0) : A(1) / total;
        if (params.lse.present() && column_ == 0)
          detail::store_lse(params.lse, chunk_.batch, chunk_.head, chunk_.origin + first_ + i - in.position, most,
                            total);
      }
      group.sync();
    }
    int const across = divide_up(columns_, W), offset = begin_ - first_;
    for_each_pair(group, end_ - begin_, across, [&](int r, int n) TCNCA_INLINE {
      int const i = offset + r, c = n * W;
      value v = broadcast<W>(A(0));
      if (any) {
        v = load<W>(const_cast<A const*>(at(params.plan.output) + i * params.plan.output_row + c));
        if constexpr (softmax) {
          v = detail::is_zero(rescale()[i]) ? broadcast<W>(A(0)) : v * broadcast<W>(rescale()[i]);
        }
      }
      T* const to = params.o.at(chunk_.batch, chunk_.head, chunk_.origin + first_ + i - in.position, 0);
      base::store(to, column_ + c, column_ + columns_, v);
    });
  }
};

}  // namespace tcnca
