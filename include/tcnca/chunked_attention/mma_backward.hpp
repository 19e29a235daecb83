// The backward pass on tensor cores, for 16-bit elements: three kinds of items, each of which computes the weights of its block again and keeps
// what it sums in registers, so that no two groups add to the same number: gradients of values, of keys, and of queries (and biases).
#pragma once
#include "backward.hpp"
#include "mma.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What the rows of a group are; the other are its columns.
enum class attention_side { queries, keys };

namespace detail {

/// What the items share: where rows and columns are, which pairs count, weights and derivatives from products.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy, attention_side Side>
struct attention_gradient_warps : attention_warps<Group, T, Shape, Policy> {
  using base = attention_warps<Group, T, Shape, Policy>;
  using typename base::A, typename base::scores, typename base::weights, typename base::keep_mask;
  using base::group, base::in, base::warp, base::softmax, base::chunk_, base::first_, base::first_row_, base::M,
      base::R, base::C, base::key_tiles, base::key_row, base::of_row;
  using params_type = chunked_attention_backward_params<T>;
  static constexpr bool of_queries = Side == attention_side::queries;
  static constexpr int floats =
      R + C + 3 * C;  // of a stage: the biases of its diagonals, then, if its columns are queries, three
                      // numbers each: maximum, delta, and log-sum (softmax) or scale

  params_type const& params;
  TCNCA_HOST_DEVICE attention_gradient_warps(Group g, params_type const& p) : base(g, p.in), params(p) {}

  TCNCA_HOST_DEVICE static constexpr index_t row_blocks(params_type const& p) {
    return divide_up(p.in.chunk, index_t(R));
  }
  TCNCA_HOST_DEVICE static constexpr index_t chunks(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.chunks();
  }

  /// Begins an item: block `block` of the rows of a chunk.
  TCNCA_HOST_DEVICE void begin(index_t chunk, int block) {
    chunk_ = this->chunk_of(chunk);
    this->begin_rows(block * R);
    int const rows = min_of(first_ + R, of_queries ? chunk_.last : chunk_.keys);
    bool const none = first_ >= rows || (of_queries && rows <= chunk_.first);
    if constexpr (of_queries) {
      begin_ = 0, end_ = none ? 0 : this->visible(chunk_, rows - 1);
    } else {
      begin_ = max_of(chunk_.first, Shape.causal ? first_ : 0) / C * C, end_ = none ? begin_ : chunk_.last;
    }
    if constexpr (of_queries) {
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        int const i = this->position(half);
        most_[half] = query_exists(i) ? most(i) : A(0), delta_[half] = query_exists(i) ? delta(i) : A(0);
        log_sum_[half] = query_exists(i) ? log_sum(i) : A(0);
      }
    }
  }
  /// Steps of 16 columns of the block at `from` that some row of the warp sees.
  TCNCA_HOST_DEVICE int first_step(int from) const {
    return of_queries || !Shape.causal ? 0 : max_of(0, (first_row_ - from) / M);
  }
  TCNCA_HOST_DEVICE int last_step(int from) const {
    int const last = first_row_ + M - 1;  // row
    if constexpr (of_queries) {
      bool const none = first_row_ >= chunk_.last || last < chunk_.first;
      return none ? 0
                  : min_of(C / M, divide_up(max_of(0, this->visible(chunk_, min_of(last, chunk_.last - 1)) - from), M));
    } else {
      return first_row_ >= chunk_.keys ? 0 : min_of(C / M, divide_up(max_of(0, chunk_.last - from), M));
    }
  }

  TCNCA_HOST_DEVICE bool query_exists(int i) const { return i >= chunk_.first && i < chunk_.last; }
  TCNCA_HOST_DEVICE T const* query_row(int i) const { return query_exists(i) ? this->query(chunk_, i) : nullptr; }
  TCNCA_HOST_DEVICE T const* grad_row(int i) const {
    return query_exists(i) ? params.grad_o.at(chunk_.batch, chunk_.head, chunk_.origin + i - in.position, 0) : nullptr;
  }
  TCNCA_HOST_DEVICE T const* key_row_of(int j) const { return j < chunk_.keys ? this->key(chunk_, j) : nullptr; }
  TCNCA_HOST_DEVICE T const* value_row_of(int j) const { return j < chunk_.keys ? this->values(chunk_, j) : nullptr; }

  /// The floats of a stage, for the columns from `from` on.
  TCNCA_HOST_DEVICE void load_floats(A* to, int from) const {
    if constexpr (Shape.bias) {
      for (int x = group.rank(); x < R + C; x += Group::size()) {
        int const apart = from - first_ + x - (R - 1);  // column - row
        index_t const d = in.chunk - 1 + (of_queries ? apart : -apart);
        bool const present = d >= 0 && d < in.bias.extent[1];
        warp.copy_4(warp.place(to + x), present ? in.bias.at(chunk_.head, d) : in.bias.data, present);
      }
    }
    if constexpr (!of_queries) {
      for (int c = group.rank(); c < C; c += Group::size()) {
        bool const there = query_exists(from + c);
        A* const at = to + R + C + c;
        at[0] = there ? most(from + c) : A(0), at[C] = there ? delta(from + c) : A(0);
        if constexpr (softmax) {
          at[2 * C] = there ? log_sum(from + c) : A(0);
        } else {
          at[2 * C] = this->scale(chunk_, from + c);
        }
      }
    }
  }

  /// Products q . k to weights, or (Slopes), with products grad_o . v, to gradients of scores; the columns are those from `from` on.
  template <bool Slopes>
  TCNCA_HOST_DEVICE void weigh(scores& s, [[maybe_unused]] scores const& dp, [[maybe_unused]] keep_mask keep,
                               A const* stage, int from) const {
    int const t = this->column();
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const r = this->position(half), diagonal = R - 1 - (r - first_) + t;
      int const begin = (of_queries ? 0 : max_of(chunk_.first, Shape.causal ? r : 0)) - from - t;
      int const end = (of_queries        ? (query_exists(r) ? this->visible(chunk_, r) : 0)
                       : r < chunk_.keys ? chunk_.last
                                         : 0) -
                      from - t;
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        auto const of_query = [&](A row, int which) TCNCA_INLINE {
          pack<A, 2> x = broadcast<2>(row);
          if constexpr (!of_queries) { x = tcnca::load<2>(stage + R + C + which * C + 8 * n + t); }
          return x;
        };
        auto const apply_dropout = [&](pack<A, 2> x) TCNCA_INLINE {
          if constexpr (Shape.dropout) {
            TCNCA_UNROLL
            for (int e = 0; e < 2; e++) x.set_lane(e, x.lane(e) * (keep.has(half, n, e) ? in.keep_scale : A(0)));
          }
          return x;
        };
        auto const scale = softmax ? broadcast<2>(in.scale) : of_query(of_queries ? this->scale(chunk_, r) : A(0), 2);
        pack<A, 2> x = of_row(s[n], half) * scale;
        if constexpr (Shape.bias) {
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, x.lane(e) + stage[diagonal + 8 * n + e]);
        }
        pack<A, 2> weight, derivative = broadcast<2>(A(1));
        if constexpr (softmax) {
          auto const over = x - of_query(most_[half], 0) - of_query(log_sum_[half], 2);
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) weight.set_lane(e, base::power(over.lane(e)));
        } else {
          auto const both = attention_weight<Shape.function>(x);
          weight = both.value, derivative = both.derivative;
        }
        if constexpr (!Slopes) {
          x = apply_dropout(weight);
        } else if constexpr (softmax) {
          x = weight * (apply_dropout(of_row(dp[n], half)) - of_query(delta_[half], 1));
        } else {
          x = derivative * apply_dropout(of_row(dp[n], half));
        }
        if constexpr (Slopes && !of_queries && !softmax) {
          if (in.by_count) x = x * scale;
        }
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) s[n][2 * half + e] = 8 * n + e >= begin && 8 * n + e < end ? x.lane(e) : A(0);
      }
    }
  }

  /// Which weights dropout keeps, as in the forward pass. Where rows are keys, four lanes have the four keys of a draw, in two columns and two
  /// rows of four: each draws for one of these.
  TCNCA_HOST_DEVICE keep_mask draw(int from, int begin, int end) const {
    if constexpr (of_queries) {
      return base::draw(from, begin, end);
    } else {
      int const own = this->lane() / 4 % 4, quad = this->position(own / 2) / 4 * 4;
      uint32 mine = 0;
      for (int n = 2 * begin; n < 2 * end; n++)
        mine |= this->kept_of_keys(from + 8 * n + this->column() + own % 2, quad) << 4 * n;
      keep_mask keep{};
      TCNCA_UNROLL
      for (int x = 0; x < 4; x++) {
        int const whose = own ^ x;
        uint32 const bits = (warp.exchange(mine, 4 * x) >> own & 0x11111111u) << whose % 2;
        keep.row[0] |= whose < 2 ? bits : 0u, keep.row[1] |= whose < 2 ? 0u : bits;
      }
      return keep;
    }
  }

  /// Gradients of keys or values, columns [column, column + width) of `dim`: those of the state, or the caller's; zero past the valid ones.
  template <int Tiles>
  TCNCA_HOST_DEVICE void store_keys(detail::array<float const[4], Tiles>& acc, A factor, int column, int width,
                                    tensor_view<A const, 4> const& after, tensor_view<A, 4> const& before,
                                    tensor_view<T, 4> const& grad) const {
    bool const kept = after.present() && chunk_.origin + in.chunk > in.position + in.q.extent[2];  // in the state after
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const j = this->position(half);
      if (j >= chunk_.last) continue;
      int const c = column + this->column();
      bool const fresh = j >= chunk_.first;
      A const* const add = kept ? after.at(chunk_.batch, chunk_.head, j, c) : nullptr;
      T* const to = fresh ? grad.at(chunk_.batch, chunk_.head, chunk_.origin + j - in.position, c) : nullptr;
      A* const state = !fresh && before.present() ? before.at(chunk_.batch, chunk_.head, j, c) : nullptr;
      TCNCA_UNROLL
      for (int n = 0; n < Tiles; n++) {
        if (8 * n >= width) continue;
        auto v = j < chunk_.keys ? of_row(acc[n], half) * broadcast<2>(factor) : broadcast<2>(A(0));
        if (add) v = v + load_some<2>(add + 8 * n, 1, 2);
        if (to) store_pair(to + 8 * n, v);
        else if (state) store_some<2>(state + 8 * n, 1, 2, v);
      }
    }
  }
  TCNCA_HOST_DEVICE void store_pair(T* to, pack<A, 2> v) const {
    if (in.vectorizable) tcnca::store<2>(to, v);
    else store_some<2>(to, 1, 2, v);
  }

  int begin_, end_;  // columns that some row sees; begin_ a multiple of C

 private:
  A most_[2] = {}, log_sum_[2] = {}, delta_[2] = {};  // of this lane's two rows; used only if rows are queries

  TCNCA_HOST_DEVICE A statistic(int i, int which) const {
    return softmax ? *params.lse.at(chunk_.batch, chunk_.head, chunk_.origin + i - in.position, which) : A(0);
  }
  TCNCA_HOST_DEVICE A most(int i) const {
    A const x = statistic(i, 0);
    return x == -base::infinity() ? A(0) : x;
  }
  TCNCA_HOST_DEVICE A log_sum(int i) const { return statistic(i, 1); }
  TCNCA_HOST_DEVICE A delta(int i) const { return softmax ? params.delta[params.row_of(chunk_, i)] : A(0); }
};

}  // namespace detail

/// The gradient of values: of a block of 16 keys a warp, and a tile of the value dimension. Weights transposed times grad_o.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_mma_values_agent
    : detail::attention_gradient_warps<Group, T, Shape, Policy, attention_side::keys> {
  using base = detail::attention_gradient_warps<Group, T, Shape, Policy, attention_side::keys>;
  using typename base::A, typename base::scores, typename base::weights, typename base::params_type;
  using base::group, base::in, base::warp, base::chunk_, base::first_, base::begin_, base::end_, base::params, base::M,
      base::R, base::C, base::line, base::key_row;
  static constexpr int columns = Policy.value_tile, tiles = columns / mma_fragment::columns;

  T* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_mma_values_agent(Group g, params_type const& p, A* shared_memory, A*)
      : base(g, p), shared_memory(reinterpret_cast<T*>(shared_memory)) {}

  TCNCA_HOST_DEVICE static constexpr index_t value_tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::chunks(p) * base::row_blocks(p) * value_tiles(p);
  }

  // Fast memory: the keys; one or two stages of a block of queries, a tile of their grad_o, floats.
  TCNCA_HOST_DEVICE static constexpr int stage_elements(int key_dim) {
    return C * (key_row(key_dim) + columns) + base::floats * 2;
  }
  TCNCA_HOST_DEVICE static constexpr int shared_memory_elements(int key_dim, int stages) {
    return R * key_row(key_dim) + stages * stage_elements(key_dim);
  }
  TCNCA_HOST_DEVICE static constexpr int stages(int key_dim) {
    return size_t(shared_memory_elements(key_dim, 2)) * sizeof(T) <= Policy.shared_memory_bytes ? 2 : 1;
  }
  static size_t shared_memory_bytes(int key_dim) {
    return size_t(shared_memory_elements(key_dim, stages(key_dim))) * sizeof(T);
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    int const column = int(item % value_tiles(params)) * columns, width = min_of(columns, in.value_dim() - column);
    index_t const block = item / value_tiles(params);
    this->begin(block / base::row_blocks(params), int(block % base::row_blocks(params)));
    if (first_ >= chunk_.last) return;
    int const row = key_row(in.key_dim()), padded_dim = round_up(in.key_dim(), 2 * M), ahead = stages(in.key_dim()) - 1;
    auto const queries = [&](int stage)
                             TCNCA_INLINE { return shared_memory + R * row + stage * stage_elements(in.key_dim()); };
    auto const grads = [&](int stage) TCNCA_INLINE { return queries(stage) + C * row; };
    auto const numbers = [&](int stage) TCNCA_INLINE { return reinterpret_cast<A*>(grads(stage) + C * columns); };
    detail::array<float[4], tiles> acc;
    base::clear(acc);
    if (begin_ < end_)
      this->template load_rows<R>(shared_memory, row, padded_dim, 0, in.key_dim(),
                                  [&](int r) TCNCA_INLINE { return this->key_row_of(first_ + r); });
    int const blocks = divide_up(end_ - begin_, C);
    for (int n = -ahead; n < blocks; n++) {
      warp.wait();
      group.sync();  // this block has come, and the one before is done with
      if (n + ahead < blocks) {
        int const from = begin_ + (n + ahead) * C, stage = (n + ahead) & ahead;
        this->template load_rows<C>(queries(stage), row, padded_dim, 0, in.key_dim(),
                                    [&](int r) TCNCA_INLINE { return this->query_row(from + r); });
        this->template load_rows<C>(grads(stage), columns, round_up(width, line), column, column + width,
                                    [&](int r) TCNCA_INLINE { return this->grad_row(from + r); });
        this->load_floats(numbers(stage), from);
        warp.commit();
      }
      if (n < 0) continue;
      if (ahead == 0) {
        warp.wait();
        group.sync();
      }
      int const from = begin_ + n * C, stage = n & ahead, begin = this->first_step(from), end = this->last_step(from);
      if (begin >= end) continue;
      [[maybe_unused]] typename base::keep_mask keep{};
      if constexpr (Shape.dropout) { keep = this->draw(from, begin, end); }
      scores s;
      base::clear(s);
      this->multiply_rows(s, shared_memory, queries(stage), row, in.key_dim(), begin, end);
      this->template weigh<false>(s, s, keep, numbers(stage), from);
      weights p;
      this->narrow(p, s);
      this->template add_products<false>(acc, p, grads(stage), columns, width, from, begin, end);
    }
    this->store_keys(acc, 1, column, width, params.grad_values_out, params.grad_values_in, params.grad_v);
    group.sync();  // the next item reuses the memory
  }
};

}  // namespace tcnca
