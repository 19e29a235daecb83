// The backward pass on tensor cores (mma, sm_80), for 16-bit elements. Three kinds of items: gradients of values
// (here), of keys, and of queries with biases (mma_scores.hpp). Each computes the weights of its blocks again and sums
// in registers, so that no two groups add to one number.
#pragma once
#include "backward_params.hpp"
#include "mma.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What the rows of a group's block are; the columns are the other.
enum class attention_side { queries, keys };

namespace detail {

/// What the items share: where rows and columns are, which pairs are visible, and weights and gradients of scores from
/// products.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy, attention_side Side>
struct attention_gradient_warps : attention_warps<Group, T, Shape, Policy> {
  using base = attention_warps<Group, T, Shape, Policy>;
  using typename base::A, typename base::scores, typename base::weights, typename base::keep_mask;
  using base::group, base::in, base::warp, base::softmax, base::chunk_, base::first_, base::first_row_, base::M,
      base::Br, base::Bc, base::key_tiles, base::key_row, base::row_pair;
  using params_type = chunked_attention_backward_params<T>;
  static constexpr bool rows_are_queries = Side == attention_side::queries;
  // Numbers of a stage: the biases of its diagonals; then, of columns that are queries, maximum, delta, and log-sum
  // (softmax) or scale.
  static constexpr int stage_numbers = Br + Bc + 3 * Bc;

  params_type const& params;
  TCNCA_HOST_DEVICE attention_gradient_warps(Group g, params_type const& p) : base(g, p.in), params(p) {}

  TCNCA_HOST_DEVICE static constexpr index_t row_blocks(params_type const& p) {
    return divide_up(p.in.chunk, index_t(Br));
  }

  /// Begins an item: a block of the rows of a chunk, numbered [chunk][block]. Called by all threads.
  TCNCA_HOST_DEVICE void set_block(index_t number) {
    chunk_ = this->chunk_of(number / row_blocks(params));
    this->set_row_block(int(number % row_blocks(params)) * Br);
    int const rows = min_of(first_ + Br, rows_are_queries ? this->query_end(chunk_) : chunk_.keys);
    bool const none = first_ >= rows || (rows_are_queries && rows <= chunk_.first);
    if constexpr (rows_are_queries) {
      begin_ = this->hidden(max_of(first_, chunk_.first)) / Bc * Bc;
      end_ = none ? begin_ : this->visible(chunk_, rows - 1);
      if constexpr (Shape.window) { end_ = max_of(begin_, end_); }
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) row_[half] = statistics_of(this->position(half));
    } else {
      begin_ = max_of(chunk_.first, Shape.causal ? first_ : 0) / Bc * Bc;
      end_ = none ? begin_ : this->query_end(chunk_);
      if constexpr (Shape.window) { end_ = none ? begin_ : min_of(end_, rows - 1 + in.window); }
    }
  }
  /// Steps of 16 columns of the block at `from` that some row of the warp sees: [first_step, last_step).
  TCNCA_HOST_DEVICE int first_step(int from) const {
    if constexpr (rows_are_queries) {
      return Shape.window ? max_of(0, (this->hidden(first_row_) - from) / M) : 0;
    } else {
      return !Shape.causal ? 0 : max_of(0, (first_row_ - from) / M);
    }
  }
  TCNCA_HOST_DEVICE int last_step(int from) const {
    int const last = first_row_ + M - 1;  // row
    if constexpr (rows_are_queries) {
      int const queries = this->query_end(chunk_);
      bool const none = first_row_ >= queries || last < chunk_.first;
      return none ? 0
                  : min_of(Bc / M, divide_up(max_of(0, this->visible(chunk_, min_of(last, queries - 1)) - from), M));
    } else {
      int queries = this->query_end(chunk_);
      if constexpr (Shape.window) { queries = min_of(queries, last + in.window); }
      return first_row_ >= chunk_.keys ? 0 : min_of(Bc / M, divide_up(max_of(0, queries - from), M));
    }
  }

  // Rows in the caller's memory, by position; null where there is none.
  TCNCA_HOST_DEVICE bool query_exists(int i) const { return i >= chunk_.first && i < this->query_end(chunk_); }
  TCNCA_HOST_DEVICE T const* query_row(int i) const { return query_exists(i) ? this->query(chunk_, i) : nullptr; }
  TCNCA_HOST_DEVICE T const* grad_row(int i) const {
    return query_exists(i) ? params.grad_o.at(chunk_.batch, chunk_.head, this->sequence_index(chunk_, i), 0) : nullptr;
  }
  TCNCA_HOST_DEVICE T const* key_row_of(int j) const { return j < chunk_.keys ? this->key(chunk_, j) : nullptr; }
  TCNCA_HOST_DEVICE T const* value_row_of(int j) const { return j < chunk_.keys ? this->values(chunk_, j) : nullptr; }

  /// The numbers of a stage, for the columns from `from` on. Called by all threads.
  TCNCA_HOST_DEVICE void load_numbers(A* to, int from) const {
    if constexpr (Shape.bias) { this->load_biases(to, from, rows_are_queries ? 1 : -1); }
    if constexpr (!rows_are_queries) {
      for (int c = group.rank(); c < Bc; c += Group::size()) {
        auto const row = statistics_of(from + c);
        A* const at = to + Br + Bc + c;
        at[0] = row.maximum, at[Bc] = row.delta;
        at[2 * Bc] = softmax ? row.log_sum : this->scale(chunk_, from + c);
      }
    }
  }

  /// Products q . k of the columns from `from` on to weights or, with the products dp = grad_o . v, to gradients of
  /// scores.
  template <bool Gradients>
  TCNCA_HOST_DEVICE void finish_scores(scores& s, [[maybe_unused]] scores const& dp, [[maybe_unused]] keep_mask mask,
                                       A const* numbers, int from) const {
    int const t = this->column();
    [[maybe_unused]] A const distance_factor = this->distance_factor(chunk_);
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const r = this->position(half), diagonal = Br - 1 - (r - first_) + t;
      // Visible columns of this row, counted from this lane's first.
      int const begin = (rows_are_queries ? this->hidden(r) : max_of(chunk_.first, Shape.causal ? r : 0)) - from - t;
      int const end =
          (rows_are_queries  ? (query_exists(r) ? this->visible(chunk_, r) : 0)
           : r < chunk_.keys ? (Shape.window ? min_of(this->query_end(chunk_), r + in.window) : this->query_end(chunk_))
                             : 0) -
          from - t;
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        // A number of the query: this row's, or one for each of the two columns.
        auto const of_query = [&](A row, int which) TCNCA_INLINE {
          pack<A, 2> x = broadcast<2>(row);
          if constexpr (!rows_are_queries) { x = tcnca::load<2>(numbers + Br + Bc + which * Bc + 8 * n + t); }
          return x;
        };
        auto const dropped = [&](pack<A, 2> x) TCNCA_INLINE {
          if constexpr (Shape.dropout) {
            TCNCA_UNROLL
            for (int e = 0; e < 2; e++)
              x.set_lane(e, x.lane(e) * (mask.keeps(half, n, e) ? in.dropout.keep_scale : A(0)));
          }
          return x;
        };
        auto const scale =
            softmax ? broadcast<2>(in.scale) : of_query(rows_are_queries ? this->scale(chunk_, r) : A(0), 2);
        pack<A, 2> x = row_pair(s[n], half) * scale;
        if constexpr (Shape.bias) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, x.lane(e) + numbers[diagonal + 8 * n + e]);
        }
        if constexpr (Shape.alibi) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++)
            x.set_lane(e, x.lane(e) - distance_factor * base::distance(r, from + 8 * n + t + e));
        }
        pack<A, 2> weight, derivative = broadcast<2>(A(1));
        if constexpr (softmax) {
          auto const exponent = x - of_query(row_[half].maximum, 0) - of_query(row_[half].log_sum, 2);
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) weight.set_lane(e, exp_or_zero(exponent.lane(e)));
        } else {
          auto const both = attention_weight<Shape.function>(x);
          weight = both.value, derivative = both.derivative;
        }
        if constexpr (!Gradients) {
          x = dropped(weight);
        } else if constexpr (softmax) {
          x = weight * (dropped(row_pair(dp[n], half)) - of_query(row_[half].delta, 1));
        } else {
          x = derivative * dropped(row_pair(dp[n], half));
        }
        if constexpr (Gradients && !rows_are_queries && !softmax) {
          if (in.scale_by_count) x = x * scale;
        }
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) s[n][2 * half + e] = 8 * n + e >= begin && 8 * n + e < end ? x.lane(e) : A(0);
      }
    }
  }

  /// Which weights dropout keeps, as in the forward pass. Where rows are keys, the four keys of a draw are in four
  /// lanes, which have two columns and two rows of these four: each lane draws for one of the four queries. Called by a
  /// whole warp.
  TCNCA_HOST_DEVICE keep_mask dropout_mask(int from, int begin, int end) const {
    if constexpr (rows_are_queries) {
      return base::dropout_mask(from, begin, end);
    } else {
      int const own = this->lane() / 4 % 4, four_keys = this->position(own / 2) / 4 * 4;
      uint32 own_bits = 0;
      for (int n = 2 * begin; n < 2 * end; n++)
        own_bits |= this->keep_bits(from + 8 * n + this->column() + own % 2, four_keys) << 4 * n;
      keep_mask mask{};
      TCNCA_UNROLL
      for (int x = 0; x < 4; x++) {
        int const other = own ^ x;
        uint32 const bits = (warp.shuffle_xor(own_bits, 4 * x) >> own & 0x11111111u) << other % 2;
        mask.row[0] |= other < 2 ? bits : 0u, mask.row[1] |= other < 2 ? 0u : bits;
      }
      return mask;
    }
  }

  /// Stores gradients of keys or values, columns [column, column + width), times `factor`; zeros for keys that are not
  /// valid. after, before: gradients of the state after the call, which are added, and of the state before, which rows
  /// before chunk_.first go to.
  template <int Tiles>
  TCNCA_HOST_DEVICE void store_keys(detail::array<float const[4], Tiles>& acc, A factor, int column, int width,
                                    tensor_view<A const, 4> const& after, tensor_view<A, 4> const& before,
                                    tensor_view<T, 4> const& grad) const {
    index_t const head = Shape.grouped ? chunk_.key_head : chunk_.head;
    bool const in_state_after = after.present() && chunk_.origin + in.chunk > in.position + in.q.extent[2];
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const j = this->position(half);
      if (j >= chunk_.last) continue;
      int const c = column + this->column();
      bool const in_sequence = j >= chunk_.first;
      A const* const add = in_state_after ? after.at(chunk_.batch, head, j, c) : nullptr;
      T* const to =
          in_sequence && grad.present() ? grad.at(chunk_.batch, head, this->sequence_index(chunk_, j), c) : nullptr;
      A* const state = !in_sequence && before.present() ? before.at(chunk_.batch, head, j, c) : nullptr;
      TCNCA_UNROLL
      for (int n = 0; n < Tiles; n++) {
        if (8 * n >= width) continue;
        auto v = j < chunk_.keys ? row_pair(acc[n], half) * broadcast<2>(factor) : broadcast<2>(A(0));
        if (add) v = v + load_some<2>(add + 8 * n, 1, 2);
        if (to) this->store_pair(to + 8 * n, v);
        else if (state) store_some<2>(state + 8 * n, 1, 2, v);
      }
    }
  }

  int begin_, end_;  // columns that some row of the block sees: [begin_, end_); begin_ is a multiple of Bc

 protected:
  struct row_statistics {
    A maximum = 0, log_sum = 0, delta = 0;
  };
  row_statistics row_[2];  // of this lane's two rows; used only if rows are queries

  /// Of query i; zeros where it does not exist, and without softmax.
  TCNCA_HOST_DEVICE row_statistics statistics_of(int i) const {
    row_statistics row;
    if constexpr (softmax) {
      if (query_exists(i)) {
        index_t const at = this->sequence_index(chunk_, i);
        row.maximum = finite_maximum(*params.lse.at(chunk_.batch, chunk_.head, at, 0));
        row.log_sum = *params.lse.at(chunk_.batch, chunk_.head, at, 1);
        row.delta = params.delta[params.delta_index(chunk_, i)];
      }
    }
    return row;
  }
};

}  // namespace detail

/// The gradient of values: dV = P^T dO.
///
///   item      a block of Br keys of one chunk, 16 per warp, and a tile of the value dimension
///   loop      over the blocks of Bc queries that see a key of the block
///   memory    shared: the keys [Br][key_row]; one or two stages of queries [Bc][key_row], their grad_o [Bc][columns],
///             numbers
///   barriers  those of the pipeline: one per block, two with one stage; one at the end
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_mma_values_agent
    : detail::attention_gradient_warps<Group, T, Shape, Policy, attention_side::keys> {
  using base = detail::attention_gradient_warps<Group, T, Shape, Policy, attention_side::keys>;
  using typename base::A, typename base::scores, typename base::weights, typename base::params_type;
  using base::group, base::in, base::warp, base::chunk_, base::first_, base::begin_, base::end_, base::params, base::M,
      base::Br, base::Bc, base::line, base::key_row;
  static constexpr int columns = Policy.value_tile, tiles = columns / mma_fragment::columns;

  T* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_mma_values_agent(Group g, params_type const& p, A* shared, A*)
      : base(g, p), shared_memory(reinterpret_cast<T*>(shared)) {}

  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.all_chunks() * base::row_blocks(p) * value_tiles(p);
  }
  TCNCA_HOST_DEVICE static constexpr int stage_bytes(int key_dim) {
    return Bc * (key_row(key_dim) + columns) * int(sizeof(T)) + base::stage_numbers * int(sizeof(A));
  }
  static group_memory memory(params_type const& p) {
    return base::memory_for(p.in.key_dim(), stage_bytes(p.in.key_dim()));
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    int const column = int(item % value_tiles(params)) * columns, width = min_of(columns, in.value_dim() - column);
    this->set_block(item / value_tiles(params));
    if (first_ >= chunk_.last) return;
    int const row = key_row(in.key_dim()), padded_dim = round_up(in.key_dim(), 2 * M);
    auto const queries = [&](int stage) TCNCA_INLINE {
      return shared_memory + (base::rows_bytes(in.key_dim()) + stage * stage_bytes(in.key_dim())) / int(sizeof(T));
    };
    auto const grads = [&](int stage) TCNCA_INLINE { return queries(stage) + Bc * row; };
    auto const numbers = [&](int stage) TCNCA_INLINE { return reinterpret_cast<A*>(grads(stage) + Bc * columns); };
    detail::array<float[4], tiles> acc;
    base::clear(acc);
    if (begin_ < end_)
      this->template load_rows<Br>(shared_memory, row, padded_dim, 0, in.key_dim(),
                                   [&](int r) TCNCA_INLINE { return this->key_row_of(first_ + r); });
    this->pipeline(
        divide_up(end_ - begin_, Bc), base::stages_that_fit(in.key_dim(), stage_bytes(in.key_dim())),
        [&](int n, int stage) TCNCA_INLINE {
          int const from = begin_ + n * Bc;
          this->template load_rows<Bc>(queries(stage), row, padded_dim, 0, in.key_dim(),
                                       [&](int r) TCNCA_INLINE { return this->query_row(from + r); });
          this->template load_rows<Bc>(grads(stage), columns, round_up(width, line), column, column + width,
                                       [&](int r) TCNCA_INLINE { return this->grad_row(from + r); });
          this->load_numbers(numbers(stage), from);
          warp.commit();
        },
        [&](int n, int stage) TCNCA_INLINE {
          int const from = begin_ + n * Bc, begin = this->first_step(from), end = this->last_step(from);
          if (begin >= end) return;
          [[maybe_unused]] typename base::keep_mask mask{};
          if constexpr (Shape.dropout) { mask = this->dropout_mask(from, begin, end); }
          scores s;
          base::clear(s);
          this->multiply_rows(s, shared_memory, queries(stage), row, in.key_dim(), begin, end);
          this->template finish_scores<false>(s, s, mask, numbers(stage), from);
          weights p;
          base::round_weights(p, s);
          this->template add_products<false>(acc, p, grads(stage), columns, width, from, begin, end);
        });
    this->store_keys(acc, 1, column, width, params.grad_values_out, params.grad_values_in, params.grad_v);
    group.sync();  // the next item reuses the memory
  }
};

}  // namespace tcnca
