// One group takes the keys of a chunk, block by block, past the queries that see them: scores and weights once more, then products into the
// gradients. Those of keys and values are complete after a block, those of queries gather over the blocks; nothing is added up by two groups.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Where a group of a backward pass keeps its blocks.
struct chunked_attention_backward_plan {
  memory_place query, grad_output, key, key_columns, value_columns, weight, derivative, bias, statistics, grad_key,
      grad_value, grad_query;
  int query_row = 0, value_row = 0;              // elements from a row of a gradient block to the next
  int splits = 1;                                // the keys of a chunk are shared out to so many items
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// What a backward pass is given; the same for all groups.
template <element T>
struct chunked_attention_backward_params {
  using A = accumulate_t<T>;
  chunked_attention_inputs<T> in;
  tensor_view<A const, 4> lse;
  tensor_view<T const, 4> grad_o;
  tensor_view<A const, 4> grad_keys_out, grad_values_out;
  tensor_view<T, 4> grad_q, grad_k, grad_v;
  tensor_view<A, 4> grad_keys_in, grad_values_in;
  A* delta = nullptr;       // [batch, heads, length]: grad_o . o of each query
  A* bias_sums = nullptr;   // [item][2 rows - 1], rows of the longest part of a chunk
  A* query_sums = nullptr;  // [item][rows][query_row], where there are splits
  chunked_attention_backward_plan plan = {};

  TCNCA_HOST_DEVICE index_t row_of(detail::attention_chunk const& c, int i) const {
    return (c.batch * in.heads() + c.head) * in.q.extent[2] + c.origin + i - in.position;
  }
};

/// The backward pass of one item: a chunk of one head, or a share of its keys.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_backward_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::tile;
  using base::group, base::in, base::W, base::softmax, base::key_row, base::value_row;
  using params_type = chunked_attention_backward_params<T>;
  static constexpr int M = Policy.tile_rows, R = Policy.queries, C = Policy.keys;
  static constexpr int weight_row = C + 2 * W;  // zeros on both sides, so that diagonals may run out of the block
  static_assert(R % M == 0 && C % M == 0 && C % 4 == 0 && C % tile::columns == 0,
                "tcnca::chunked_attention: a backward policy's blocks must be whole tiles");

  params_type const& params;
  A* shared_memory;
  A* global_scratch;

  TCNCA_HOST_DEVICE chunked_attention_backward_agent(Group g, params_type const& p, A* shared_memory, A* global_scratch)
      : base{g, p.in}, params(p), shared_memory(shared_memory), global_scratch(global_scratch) {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.chunks() * p.plan.splits;
  }

  /// `rows`: of the longest part of a chunk; `chunks`: of all heads and sequences.
  static chunked_attention_backward_plan plan_for(int key_dim, int value_dim, index_t rows, index_t chunks) {
    chunked_attention_backward_plan plan;
    memory_planner<A> memory{Policy.shared_memory_bytes};
    plan.query_row = round_up(key_dim, tile::columns);
    plan.value_row = round_up(value_dim, tile::columns) + W;
    plan.splits =
        int(min_of(divide_up(index_t(Policy.splits), max_of(index_t(1), chunks)), most_splits(key_dim, rows)));
    plan.statistics = memory.place(size_t(3 * R));
    plan.weight = memory.place(size_t(R) * weight_row);
    plan.derivative = memory.place(size_t(R) * weight_row);
    if (Shape.bias) plan.bias = memory.place(size_t(C + R + W));
    plan.query = memory.place(size_t(R) * key_row);
    plan.key_columns = memory.place(size_t(key_dim) * C);
    plan.key = memory.place(size_t(C) * key_row);
    plan.grad_key = memory.place(size_t(C) * size_t(plan.query_row));
    plan.grad_output = memory.place(size_t(R) * value_row);
    plan.value_columns = memory.place(size_t(value_dim) * C);
    plan.grad_value = memory.place(size_t(C) * size_t(plan.value_row));
    if (plan.splits == 1) plan.grad_query = memory.place(size_t(rows) * size_t(plan.query_row));
    plan.shared_memory = memory.shared_memory, plan.global_scratch = memory.global_scratch;
    return plan;
  }

  /// Shares of a chunk's keys, each of whole blocks; their sums for the queries stay smaller than the chunk's scores would be.
  static index_t most_splits(int key_dim, index_t rows) {
    return max_of(index_t(1), min_of(divide_up(rows, index_t(C)), rows / key_dim));
  }
  /// Items that the sums of a call are kept for, and where there are splits those of its queries: more than there are, so that a larger call
  /// never needs less.
  static index_t reserved_items(int key_dim, index_t rows, index_t chunks) {
    return max_of(chunks, reserved_queries(key_dim, rows, chunks));
  }
  static index_t reserved_queries(int key_dim, index_t rows, index_t chunks) {
    index_t const most = most_splits(key_dim, rows);
    return most > 1 ? min_of(index_t(2 * Policy.splits), chunks * most) : 0;
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    int const splits = params.plan.splits;
    chunk_ = this->chunk_of(item / splits);
    bias_sums_ = params.bias_sums + item * (2 * in.rows() - 1);
    grad_query_ =
        splits == 1 ? at(params.plan.grad_query) : params.query_sums + item * in.rows() * params.plan.query_row;
    start();
    for (int from = int(item % splits) * C; from < chunk_.last; from += splits * C)
      keys(from, min_of(C, chunk_.last - from));
    if (splits == 1) store_query_gradients();
    group.sync();  // the next item reuses the memory
  }

 private:
  detail::attention_chunk chunk_;
  A* bias_sums_;
  A* grad_query_;

  TCNCA_HOST_DEVICE A* at(memory_place const& m) const {
    return (m.global_scratch ? global_scratch : shared_memory) + m.offset;
  }

  TCNCA_HOST_DEVICE void start() const {
    if constexpr (Shape.bias) {
      for (index_t i = group.rank(); i < 2 * in.rows() - 1; i += group.size()) bias_sums_[i] = A(0);
    }
    int const row = params.plan.query_row;
    for (index_t i = index_t(chunk_.first / R * R) * row + group.rank() * W; i < index_t(chunk_.last) * row;
         i += group.size() * W)
      tcnca::store<W>(grad_query_ + i, broadcast<W>(A(0)));
    for (int i = group.rank(); i < R; i += group.size())
      tcnca::store<W>(at(params.plan.derivative) + i * weight_row, broadcast<W>(A(0)));
  }

  /// The gradients of the keys [from, from + count) and their values.
  TCNCA_HOST_DEVICE void keys(int from, int count) const {
    auto const& plan = params.plan;
    auto const one = [](int) TCNCA_INLINE { return A(1); };
    auto const key = [&](int r) TCNCA_INLINE { return this->key(chunk_, from + r); };
    this->load_rows(at(plan.key), key_row, count, M, in.key_dim(), key);
    this->load_transposed(at(plan.key_columns), C, count, in.key_dim(), key, one);
    this->load_transposed(
        at(plan.value_columns), C, count, in.value_dim(),
        [&](int r) TCNCA_INLINE { return this->values(chunk_, from + r); }, one);
    int const begin = Shape.causal ? max_of(from, chunk_.first) : chunk_.first;
    int const valid = min_of(count, chunk_.keys - from);
    bool any = false;
    for (int query = begin / R * R; query < chunk_.last && valid > 0; query += R, any = true)
      queries(from, valid, query, min_of(R, chunk_.last - query), !any);
    store_gradients(from, count, any ? valid : 0);
    group.sync();
  }

  /// The part of the queries [first, first + rows), of which those before chunk_.first do not exist.
  TCNCA_HOST_DEVICE void queries(int from, int count, int first, int rows, bool clear) const {
    auto const& plan = params.plan;
    int const missing = max_of(0, chunk_.first - first),
              diagonal = from - first;  // key j of the block is seen by the queries from diagonal + j on
    this->load_rows(
        at(plan.query), key_row, rows, M, in.key_dim(),
        [&](int r) TCNCA_INLINE { return r >= missing ? this->query(chunk_, first + r) : nullptr; },
        [&](int r) TCNCA_INLINE { return this->scale(chunk_, first + r); });
    this->load_rows(at(plan.grad_output), value_row, rows, M, in.value_dim(), [&](int r) TCNCA_INLINE {
      return r >= missing ? params.grad_o.at(chunk_.batch, chunk_.head, chunk_.origin + first + r - in.position, 0)
                          : nullptr;
    });
    if constexpr (Shape.bias) {
      for (int x = group.rank(); x < C + R + W; x += group.size()) {
        index_t const d = in.chunk - 1 + diagonal + x - (R - 1);
        at(plan.bias)[x] = d >= 0 && d < in.bias.extent[1] ? *in.bias.at(chunk_.head, d) : A(0);
      }
    }
    if constexpr (softmax) {
      for (int r = group.rank(); r < rows; r += group.size()) {
        index_t const row = params.row_of(chunk_, first + r);
        index_t const t = chunk_.origin + first + r - in.position;
        A const most = r >= missing ? *params.lse.at(chunk_.batch, chunk_.head, t, 0) : A(0);
        at(plan.statistics)[r] = detail::is_minus_infinity(most) ? A(0) : most;
        at(plan.statistics)[R + r] = r >= missing ? params.delta[row] : A(0);
        at(plan.statistics)[2 * R + r] = r >= missing ? *params.lse.at(chunk_.batch, chunk_.head, t, 1) : A(0);
      }
    }
    group.sync();
    A *const weight = at(plan.weight) + W, *const derivative = at(plan.derivative) + W;
    for_each_tile<tile>(group, rows, count, [&](int i, int j) TCNCA_INLINE {
      if (Shape.causal && i + M <= diagonal + j) return;  // masked
      tile t;
      t.clear();
      t.template add<key_row, 1, C>(at(plan.query) + i * key_row, at(plan.key_columns) + j, 0, in.key_dim());
      t.store(weight + i * weight_row + j, weight_row);
      t.clear();
      t.template add<value_row, 1, C>(at(plan.grad_output) + i * value_row, at(plan.value_columns) + j, 0,
                                      in.value_dim());
      t.store(derivative + i * weight_row + j, weight_row);
    });
    group.sync();
    weigh(from, count, first, rows, missing);
    group.sync();
    add_products(count, rows, diagonal, first, clear);
    if constexpr (Shape.bias) { add_diagonals(count, rows, diagonal); }
    group.sync();
  }

  /// Scores and products grad_o . v turn to weights and the gradients of scores.
  TCNCA_HOST_DEVICE void weigh(int from, int count, int first, int rows, int missing) const {
    auto const& plan = params.plan;
    int const packs = min_of(divide_up(count, W) + 1, C / W + 1);  // one more of zeros, for the diagonals
    value const zero = broadcast<W>(A(0));
    for_each_pair(group, rows, packs, [&](int i, int n) TCNCA_INLINE {
      int const j = n * W, visible = i < missing ? 0 : min_of(this->visible(chunk_, first + i) - from, count);
      A *const weight = at(plan.weight) + i * weight_row + W + j, *const derivative =
                                                                      at(plan.derivative) + i * weight_row + W + j;
      value p = zero, ds = zero;
      if (j < visible) {
        value s = tcnca::load<W>(const_cast<A const*>(weight));
        if constexpr (Shape.bias) {
          s = materialize(s + load_anywhere<W>(const_cast<A const*>(at(plan.bias)) + R - 1 - i + j));
        }
        value dp = tcnca::load<W>(const_cast<A const*>(derivative)), keep = broadcast<W>(A(1));
        if constexpr (Shape.dropout) { keep = this->dropout_of_keys(chunk_, first + i, from + j), dp = dp * keep; }
        if constexpr (softmax) {
          // In two steps: -ffast-math would add the logarithm to the maximum first, and there it vanishes.
          p = detail::exp_or_zero(materialize(s - broadcast<W>(at(plan.statistics)[i])) -
                                  broadcast<W>(at(plan.statistics)[2 * R + i]));
          ds = p * (dp - broadcast<W>(at(plan.statistics)[R + i]));
        } else {
          auto const a = detail::attention_weight<Shape.function>(s);
          p = a.value, ds = a.derivative * dp;
        }
        if constexpr (Shape.dropout) { p = p * keep; }
        if (visible - j < W) {  // the others are masked
          value left = broadcast<W>(A(visible - j) - A(0.5));
          TCNCA_UNROLL
          for (int w = 0; w < W; w++) left.set_lane(w, left.lane(w) - A(w));
          p = select_positive(left, p, zero), ds = select_positive(left, ds, zero);
        }
      }
      tcnca::store<W>(weight, p), tcnca::store<W>(derivative, ds);
    });
  }

  /// The block's products into the gradients of values, keys and queries.
  TCNCA_HOST_DEVICE void add_products(int count, int rows, int diagonal, int first, bool clear) const {
    auto const& plan = params.plan;
    A const *const weight = at(plan.weight) + W, *const derivative = at(plan.derivative) + W;
    auto const begin = [&](tile& t, A const* from, int row, bool anew) TCNCA_INLINE {
      if (anew) t.clear();
      else t.load(from, row, [](int, value v) TCNCA_INLINE { return v; });
    };
    A *const grad_value = at(plan.grad_value), *const grad_key = at(plan.grad_key);
    for_each_tile<tile>(group, count, in.value_dim(), [&](int j, int c) TCNCA_INLINE {
      tile t;
      A* const to = grad_value + j * plan.value_row + c;
      begin(t, to, plan.value_row, clear);
      if constexpr (Shape.causal) {
        t.template add_above<1, weight_row, value_row>(weight + j, at(plan.grad_output) + c, rows, diagonal + j);
      } else {
        t.template add<1, weight_row, value_row>(weight + j, at(plan.grad_output) + c, 0, rows);
      }
      t.store(to, plan.value_row);
    });
    for_each_tile<tile>(group, count, in.key_dim(), [&](int j, int c) TCNCA_INLINE {
      tile t;
      A* const to = grad_key + j * plan.query_row + c;
      begin(t, to, plan.query_row, clear);
      if constexpr (Shape.causal) {
        t.template add_above<1, weight_row, key_row>(derivative + j, at(plan.query) + c, rows, diagonal + j);
      } else {
        t.template add<1, weight_row, key_row>(derivative + j, at(plan.query) + c, 0, rows);
      }
      t.store(to, plan.query_row);
    });
    for_each_tile<tile>(group, rows, in.key_dim(), [&](int i, int c) TCNCA_INLINE {
      tile t;
      A* const to = grad_query_ + index_t(first + i) * plan.query_row + c;
      int const present = min_of(M, rows - i);
      t.load_some(to, plan.query_row, present);
      if constexpr (Shape.causal) {
        t.template add_below<weight_row, 1, key_row>(derivative + i * weight_row, at(plan.key) + c, count,
                                                     i - diagonal);
      } else {
        t.template add<weight_row, 1, key_row>(derivative + i * weight_row, at(plan.key) + c, 0, count);
      }
      t.store_some(to, plan.query_row, present);
    });
  }

  /// The gradients of the biases: sums along the diagonals of the block, W of them at a time.
  TCNCA_HOST_DEVICE void add_diagonals(int count, int rows, int diagonal) const {
    A const* const derivative = at(params.plan.derivative) + W;
    index_t const length = 2 * in.rows() - 1, origin = in.rows() - 1 + diagonal - (R - 1);
    for (int x = group.rank() * W; x < count + R; x += group.size() * W) {
      value total = broadcast<W>(A(0));
      int const column = x - (R - 1);  // of row 0
      for (int i = max_of(0, 1 - W - column); i < min_of(rows, count - column); i++)
        total = total + load_anywhere<W>(derivative + i * weight_row + column + i);
      A* const to = bias_sums_ + origin + x;
      if (Group::size() == 1 && origin + x >= 0 && origin + x + W <= length) {
        tcnca::store<W>(to, load<W>(const_cast<A const*>(to)) + total);
      } else {
        TCNCA_UNROLL
        for (int w = 0; w < W; w++)
          if (origin + x + w >= 0 && origin + x + w < length) to[w] += total.lane(w);
      }
    }
  }

  /// Gradients of the block's keys and values: those of the state, or the caller's; of the keys past `valid`, which nobody sees, zero.
  TCNCA_HOST_DEVICE void store_gradients(int from, int count, int valid) const {
    auto const& plan = params.plan;
    store_rows(from, count, valid, at(plan.grad_key), plan.query_row, in.key_dim(), params.grad_keys_out,
               params.grad_keys_in, params.grad_k);
    store_rows(from, count, valid, at(plan.grad_value), plan.value_row, in.value_dim(), params.grad_values_out,
               params.grad_values_in, params.grad_v);
  }
  TCNCA_HOST_DEVICE void store_rows(int from, int count, int valid, A const* block, int row, int dim,
                                    tensor_view<A const, 4> const& after, tensor_view<A, 4> const& before,
                                    tensor_view<T, 4> const& grad) const {
    int const across = divide_up(dim, W);
    bool const kept = after.present() && chunk_.origin + in.chunk > in.position + in.q.extent[2];  // in the state after
    for_each_pair(group, count, across, [&](int r, int n) TCNCA_INLINE {
      int const c = n * W, j = from + r;
      value v = r < valid ? tcnca::load<W>(block + r * row + c) : broadcast<W>(A(0));
      if (kept) v = v + this->load(after.at(chunk_.batch, chunk_.head, j, 0), c, dim);
      if (j >= chunk_.first)
        this->store(grad.at(chunk_.batch, chunk_.head, chunk_.origin + j - in.position, 0), c, dim, v);
      else if (before.present()) this->store(before.at(chunk_.batch, chunk_.head, j, 0), c, dim, v);
    });
  }

  TCNCA_HOST_DEVICE void store_query_gradients() const {
    int const across = divide_up(in.key_dim(), W);
    for_each_pair(group, chunk_.last - chunk_.first, across, [&](int r, int n) TCNCA_INLINE {
      int const i = chunk_.first + r, c = n * W;
      value const v = tcnca::load<W>(const_cast<A const*>(grad_query_ + index_t(i) * params.plan.query_row + c));
      this->store(params.grad_q.at(chunk_.batch, chunk_.head, chunk_.origin + i - in.position, 0), c, in.key_dim(),
                  v * broadcast<W>(this->scale(chunk_, i)));
    });
  }
};

}  // namespace tcnca
