// The gradients that go through the scores, on tensor cores: of keys, of queries, and of biases.
#pragma once
#include "mma_backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The gradient of queries, or of keys: of a block of 16 rows a warp, and a tile of the key dimension. For each block of columns the products
/// grad_o . v gather over the value dimension, 64 elements at a time; then the scores, their gradients, and these times the columns.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy, attention_side Side>
struct chunked_attention_mma_scores_agent : detail::attention_gradient_warps<Group, T, Shape, Policy, Side> {
  using base = detail::attention_gradient_warps<Group, T, Shape, Policy, Side>;
  using typename base::A, typename base::scores, typename base::weights, typename base::params_type;
  using base::group, base::in, base::warp, base::chunk_, base::first_, base::first_row_, base::begin_, base::end_,
      base::params, base::M, base::R, base::C, base::line, base::key_row, base::of_queries, base::key_tiles;
  static constexpr int columns = 128, tiles = columns / mma_fragment::columns, warps = R / M;
  static constexpr bool biases = Shape.bias && of_queries;
  // A block's gradients of scores, for their diagonals: of each warp 8 rows at a time, and then its 79 diagonals.
  static constexpr int derivative_row = C + 8, diagonals = 80;
  static_assert(M + C - 1 <= diagonals &&
                    (warps * (8 * derivative_row + diagonals)) * sizeof(A) <= size_t((R + C) * line) * sizeof(T),
                "tcnca::chunked_attention: the diagonals of a block must fit in a stage");

  T* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_mma_scores_agent(Group g, params_type const& p, A* shared_memory, A*)
      : base(g, p), shared_memory(reinterpret_cast<T*>(shared_memory)) {}

  TCNCA_HOST_DEVICE static constexpr index_t key_tiles_of(params_type const& p) {
    return divide_up(index_t(p.in.key_dim()), index_t(columns));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::chunks(p) * base::row_blocks(p) * key_tiles_of(p);
  }

  // Fast memory: the rows; one or two stages of a block of columns, 64 elements of the value dimension of both sides, floats.
  TCNCA_HOST_DEVICE static constexpr int stage_elements(int key_dim) {
    return C * key_row(key_dim) + (R + C) * line + base::floats * 2;
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

  /// What an item of queries leaves of the biases: its diagonals from column - row = -(R - 1) - first on.
  TCNCA_HOST_DEVICE static constexpr index_t bias_row(index_t chunk) { return round_up(chunk, index_t(C)) + R; }
  static index_t bias_elements(params_type const& p) {
    return detail::saturating_multiply(base::chunks(p) * base::row_blocks(p), bias_row(p.in.chunk));
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    int const column = int(item % key_tiles_of(params)) * columns, width = min_of(columns, in.key_dim() - column);
    index_t const block = item / key_tiles_of(params);
    this->begin(block / base::row_blocks(params), int(block % base::row_blocks(params)));
    A* const bias_sums = biases && column == 0 ? params.bias_sums + block * bias_row(in.chunk) : nullptr;
    if (bias_sums)
      for (index_t x = group.rank(); x < bias_row(in.chunk); x += Group::size()) bias_sums[x] = A(0);
    if (first_ >= chunk_.last) return;
    float acc[tiles][4];
    base::clear(acc);
    walk(acc, column, width, bias_sums);
    if constexpr (of_queries) {
      store_queries(acc, column, width);
    } else {
      this->store_keys(acc, in.by_count ? A(1) : in.scale, column, width, params.grad_keys_out, params.grad_keys_in,
                       params.grad_k);
    }
    group.sync();  // the next item reuses the memory
  }

 private:
  TCNCA_HOST_DEVICE T* stage(int n) const {
    return shared_memory + R * key_row(in.key_dim()) + n * stage_elements(in.key_dim());
  }
  TCNCA_HOST_DEVICE T* grads(int n) const { return stage(n) + C * key_row(in.key_dim()); }
  TCNCA_HOST_DEVICE A* floats(int n) const { return reinterpret_cast<A*>(grads(n) + (R + C) * line); }

  TCNCA_HOST_DEVICE T const* row_keys(int r) const { return of_queries ? this->query_row(r) : this->key_row_of(r); }
  TCNCA_HOST_DEVICE T const* column_keys(int c) const { return of_queries ? this->key_row_of(c) : this->query_row(c); }
  TCNCA_HOST_DEVICE T const* row_values(int r) const { return of_queries ? this->grad_row(r) : this->value_row_of(r); }
  TCNCA_HOST_DEVICE T const* column_values(int c) const {
    return of_queries ? this->value_row_of(c) : this->grad_row(c);
  }

  /// One turn: 64 elements of the value dimension of a block; in the block's last, its gradients.
  TCNCA_HOST_DEVICE void walk(float (&acc)[tiles][4], int column, int width, A* bias_sums) {
    int const row = key_row(in.key_dim()), padded_dim = round_up(in.key_dim(), 2 * M), ahead = stages(in.key_dim()) - 1;
    int const turns = divide_up(in.value_dim(), line);
    if (begin_ < end_)
      this->template load_rows<R>(shared_memory, row, padded_dim, 0, in.key_dim(),
                                  [&](int r) TCNCA_INLINE { return row_keys(first_ + r); });
    scores dp;
    base::clear(dp);
    // With two stages the first turn, -1, only loads.
    int turn = -ahead, to = ahead;  // to: the stage of this turn
    for (int from = begin_; from < end_;) {
      warp.wait();
      group.sync();  // this turn's rows have come, and the turn before is done with
      int const next = turn + ahead < turns ? from : from + C;
      if (next < end_) load(next, next == from ? turn + ahead : 0, to ^ ahead);
      if (ahead == 0) {
        warp.wait();
        group.sync();
      }
      T* const values = grads(to);
      to ^= ahead;
      if (turn++ < 0) continue;
      int const begin = this->first_step(from), end = this->last_step(from), block = (from - begin_) / C & ahead;
      if (begin < end) this->multiply_rows(dp, values, values + R * line, line, line, begin, end);
      if (turn < turns) continue;
      if (begin < end) {
        [[maybe_unused]] typename base::keep_mask keep{};
        if constexpr (Shape.dropout) { keep = this->draw(from, begin, end); }
        scores s;
        base::clear(s);
        this->multiply_rows(s, shared_memory, stage(block), row, in.key_dim(), begin, end);
        this->template weigh<true>(s, dp, keep, floats(block), from);
        weights p;
        this->narrow(p, s);
        this->template add_products<of_queries>(acc, p, stage(block) + column, row, width, from, begin, end);
        if constexpr (biases) {
          TCNCA_UNROLL
          for (int i = 0; i < key_tiles; i++) {
            TCNCA_UNROLL
            for (int e = 0; e < 4; e++) dp[i][e] = s[i][e];
          }
        }
      }
      if constexpr (biases) {
        if (bias_sums) add_diagonals(dp, reinterpret_cast<A*>(values), bias_sums + from);
      }
      base::clear(dp);
      from += C, turn = 0;
    }
  }

  /// Columns from `from` on; 64 elements of the values of both sides to stage `to`, with the first the block itself.
  TCNCA_HOST_DEVICE void load(int from, int turn, int to) const {
    int const first = turn * line, last = in.value_dim();
    if (turn == 0) {
      int const to_block = (from - begin_) / C & (stages(in.key_dim()) - 1);
      // Loads whole lines: the products with the gradients of scores read all of their columns.
      this->template load_rows<C>(stage(to_block), key_row(in.key_dim()), key_row(in.key_dim()), 0, in.key_dim(),
                                  [&](int r) TCNCA_INLINE { return column_keys(from + r); });
      this->load_floats(floats(to_block), from);
    }
    this->template load_rows<R>(grads(to), line, line, first, last,
                                [&](int r) TCNCA_INLINE { return row_values(first_ + r); });
    this->template load_rows<C>(grads(to) + R * line, line, line, first, last,
                                [&](int r) TCNCA_INLINE { return column_values(from + r); });
    warp.commit();
  }

  /// Adds the sums along the diagonals of a block (zero where it has no gradients). Each warp adds up its rows in order, then all the warps' in order.
  TCNCA_HOST_DEVICE void add_diagonals(scores const& derivative, A* memory, A* sums) const {
    int const own = this->rank() / warp_size;
    A *const rows = memory + own * 8 * derivative_row, *const shares = memory + warps * 8 * derivative_row;
    A share[3] = {0, 0, 0};
    group.sync();  // the stage is done with
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++)
        tcnca::store<2>(rows + mma_fragment::c(this->lane(), 0).row * derivative_row + 8 * n + this->column(),
                        base::of_row(derivative[n], half));
      warp.sync();
      TCNCA_UNROLL
      for (int m = 0; m < 3; m++) {
        int const apart = this->lane() + m * warp_size - (M - 1) + 8 * half;  // column - row, the row of these 8
        for (int r = max_of(0, -apart); r < min_of(8, C - apart); r++) share[m] += rows[r * derivative_row + apart + r];
      }
      warp.sync();
    }
    TCNCA_UNROLL
    for (int m = 0; m < 3; m++)
      if (this->lane() + m * warp_size < diagonals) shares[own * diagonals + this->lane() + m * warp_size] = share[m];
    group.sync();
    for (int x = group.rank(); x < R + C - 1; x += Group::size()) {
      A sum = 0;
      for (int w = 0; w < warps; w++) {
        int const d = x - (R - M) + w * M;  // of the warp's diagonals
        if (d >= 0 && d < diagonals) sum += shares[w * diagonals + d];
      }
      sums[x] += sum;
    }
  }

  TCNCA_HOST_DEVICE void store_queries(float const (&acc)[tiles][4], int column, int width) const {
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half);
      if (!this->query_exists(i)) continue;
      A const scale = this->scale(chunk_, i);
      T* const to =
          params.grad_q.at(chunk_.batch, chunk_.head, chunk_.origin + i - in.position, column + this->column());
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n++)
        if (8 * n < width) this->store_pair(to + 8 * n, base::of_row(acc[n], half) * broadcast<2>(scale));
    }
  }
};

/// The gradient of the biases: what the items of queries left, in their order. One item: some diagonals of a head.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_mma_biases_agent {
  using A = float;
  using group_type = Group;
  using queries = chunked_attention_mma_scores_agent<Group, T, Shape, Policy, attention_side::queries>;
  struct params_type {
    chunked_attention_backward_params<T> of;
    tensor_view<A, 2> grad_bias;
  };
  static constexpr index_t block = 256;
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) {
    return divide_up(2 * p.of.in.chunk - 1, block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return Shape.bias ? p.grad_bias.extent[0] * blocks(p) : 0;
  }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_mma_biases_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params.of;
    index_t const head = item / blocks(params), from = item % blocks(params) * block, chunk = p.in.chunk,
                  row = queries::bias_row(chunk);
    index_t const row_blocks = queries::row_blocks(p), each = p.in.chunks() * row_blocks;
    for (index_t d = from + group.rank(); d < min_of(from + block, 2 * chunk - 1); d += group.size()) {
      double sum = 0;  // fp64: there may be many items
      for (index_t b = 0; b < p.in.q.extent[0]; b++)
        for (index_t n = 0; n < each; n++) {
          index_t const x = d - (chunk - 1) + n % row_blocks * queries::R + queries::R - 1;
          if (x >= 0 && x < row) sum += double(p.bias_sums[((b * p.in.heads() + head) * each + n) * row + x]);
        }
      *params.grad_bias.at(head, d) = A(sum);
    }
  }
};

}  // namespace tcnca
