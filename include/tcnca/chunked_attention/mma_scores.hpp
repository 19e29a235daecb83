// The gradients that go through the scores, on tensor cores: of queries or keys, of biases with those of queries, and
// the sum of the latter.
#pragma once
#include "mma_backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The gradient of queries, dQ = dS K, or of keys, dK = dS^T Q.
///
///   item      a block of Br rows (queries, or keys) of one chunk, 16 per warp, and a tile of 128 columns of the key
///             dimension
///   loop      over the blocks of Bc columns that a row of the block sees, and for each over slices of 64 elements of
///             the value dimension:
///               dP += (grad_o or V of the rows) x (V or grad_o of the columns)^T
///             after the last slice of a block: S, dS, the products with the columns, and the sums of dS along
///             diagonals (biases)
///   memory    shared: the rows [Br][key_row]; one or two stages, each with a block of columns [Bc][key_row], a slice
///             of the value dimension of rows and columns [Br + Bc][64], and numbers. Blocks and slices alternate
///             between the stages independently
///   barriers  those of the pipeline: one per slice, two with one stage; two per block for biases; one at the end
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy, attention_side Side>
struct chunked_attention_mma_scores_agent : detail::attention_gradient_warps<Group, T, Shape, Policy, Side> {
  using base = detail::attention_gradient_warps<Group, T, Shape, Policy, Side>;
  using typename base::A, typename base::scores, typename base::weights, typename base::params_type;
  using base::group, base::in, base::warp, base::chunk_, base::first_, base::begin_, base::end_, base::params, base::M,
      base::Br, base::Bc, base::line, base::key_row, base::rows_are_queries, base::key_tiles;
  static constexpr int columns = 128, tiles = columns / mma_fragment::columns, warps = Br / M;
  static constexpr bool biases = Shape.bias && rows_are_queries;
  // For the sums along diagonals, in the memory of a finished slice: of each warp 8 rows of dS at a time, then its M +
  // Bc - 1 diagonals.
  static constexpr int derivative_row = Bc + 8, diagonals = 80;
  static_assert(M + Bc - 1 <= diagonals &&
                    (warps * (8 * derivative_row + diagonals)) * sizeof(A) <= size_t((Br + Bc) * line) * sizeof(T),
                "tcnca::chunked_attention: the diagonals of a block must fit in a stage");

  T* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_mma_scores_agent(Group g, params_type const& p, A* shared, A*)
      : base(g, p), shared_memory(reinterpret_cast<T*>(shared)) {}

  /// One tile makes the sums of biases.
  TCNCA_HOST_DEVICE static constexpr index_t key_dim_tiles(params_type const& p) {
    return rows_are_queries && !p.wants_queries() ? 1 : divide_up(index_t(p.in.key_dim()), index_t(columns));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.all_chunks() * base::row_blocks(p) * key_dim_tiles(p);
  }
  TCNCA_HOST_DEVICE static constexpr int stage_bytes(int key_dim) {
    return (Bc * key_row(key_dim) + (Br + Bc) * line) * int(sizeof(T)) + base::stage_numbers * int(sizeof(A));
  }
  TCNCA_HOST_DEVICE static constexpr int stages(int key_dim) {
    return base::stages_that_fit(key_dim, stage_bytes(key_dim));
  }
  static group_memory memory(params_type const& p) {
    return base::memory_for(p.in.key_dim(), stage_bytes(p.in.key_dim()));
  }

  /// Elements of bias_sums per block of queries: its diagonals from column - row = -(Br - 1) - first on.
  TCNCA_HOST_DEVICE static constexpr index_t bias_row(index_t chunk) { return round_up(chunk, index_t(Bc)) + Br; }
  static index_t bias_elements(params_type const& p) {
    return detail::saturating_multiply(p.in.all_chunks() * base::row_blocks(p), bias_row(p.in.chunk));
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) {
    int const column = int(item % key_dim_tiles(params)) * columns, width = min_of(columns, in.key_dim() - column);
    index_t const block = item / key_dim_tiles(params);
    this->set_block(block);
    A* const bias_sums =
        biases && column == 0 && params.wants_biases() ? params.bias_sums + block * bias_row(in.chunk) : nullptr;
    if (bias_sums)
      for (index_t x = group.rank(); x < bias_row(in.chunk); x += Group::size()) bias_sums[x] = A(0);
    if (first_ >= chunk_.last) return;
    float acc[tiles][4];
    base::clear(acc);
    process_column_blocks(acc, column, width, bias_sums);
    if constexpr (rows_are_queries) {
      if (params.wants_queries()) store_queries(acc, column, width);
    } else {
      this->store_keys(acc, in.scale_by_count ? A(1) : in.scale, column, width, params.grad_keys_out,
                       params.grad_keys_in, params.grad_k);
    }
    group.sync();  // the next item reuses the memory
  }

 private:
  // Of stage n: a block of columns, a slice of the value dimension of rows, then columns, and numbers.
  TCNCA_HOST_DEVICE T* block_of(int n) const {
    return shared_memory + (base::rows_bytes(in.key_dim()) + n * stage_bytes(in.key_dim())) / int(sizeof(T));
  }
  TCNCA_HOST_DEVICE T* slice_of(int n) const { return block_of(n) + Bc * key_row(in.key_dim()); }
  TCNCA_HOST_DEVICE A* numbers_of(int n) const { return reinterpret_cast<A*>(slice_of(n) + (Br + Bc) * line); }

  // Rows and columns of the scores in the caller's memory: q and k, or grad_o and v.
  TCNCA_HOST_DEVICE T const* row_of(int r) const { return rows_are_queries ? this->query_row(r) : this->key_row_of(r); }
  TCNCA_HOST_DEVICE T const* column_of(int c) const {
    return rows_are_queries ? this->key_row_of(c) : this->query_row(c);
  }
  TCNCA_HOST_DEVICE T const* row_values(int r) const {
    return rows_are_queries ? this->grad_row(r) : this->value_row_of(r);
  }
  TCNCA_HOST_DEVICE T const* column_values(int c) const {
    return rows_are_queries ? this->value_row_of(c) : this->grad_row(c);
  }

  TCNCA_HOST_DEVICE void process_column_blocks(float (&acc)[tiles][4], int column, int width, A* bias_sums) {
    int const slices = divide_up(in.value_dim(), line), last_stage = stages(in.key_dim()) - 1;
    if (begin_ < end_)
      this->template load_rows<Br>(shared_memory, key_row(in.key_dim()), round_up(in.key_dim(), 2 * M), 0, in.key_dim(),
                                   [&](int r) TCNCA_INLINE { return row_of(first_ + r); });
    scores dp;
    base::clear(dp);
    this->pipeline(
        divide_up(end_ - begin_, Bc) * slices, last_stage + 1,
        [&](int n, int stage) TCNCA_INLINE { load(n / slices, n % slices, n / slices & last_stage, stage); },
        [&](int n, int stage) TCNCA_INLINE {
          int const block = n / slices, from = begin_ + block * Bc, begin = this->first_step(from),
                    end = this->last_step(from);
          T* const slice = slice_of(stage);
          if (begin < end) this->multiply_rows(dp, slice, slice + Br * line, line, line, begin, end);
          if (n % slices + 1 < slices) return;
          if (begin < end) add_block(acc, dp, block & last_stage, from, begin, end, column, width);
          if constexpr (biases) {
            if (bias_sums) add_diagonals(dp, reinterpret_cast<A*>(slice), bias_sums + from);
          }
          base::clear(dp);
        });
  }

  /// Begins copies of a slice of the value dimension of rows and columns to `stage` and, with the first slice of a
  /// block, of the block itself to block_stage.
  TCNCA_HOST_DEVICE void load(int block, int slice, int block_stage, int stage) const {
    int const from = begin_ + block * Bc, first = slice * line, last = in.value_dim();
    if (slice == 0) {
      // Whole lines: the products with the gradients of scores read all of their columns.
      this->template load_rows<Bc>(block_of(block_stage), key_row(in.key_dim()), key_row(in.key_dim()), 0, in.key_dim(),
                                   [&](int r) TCNCA_INLINE { return column_of(from + r); });
      this->load_numbers(numbers_of(block_stage), from);
    }
    this->template load_rows<Br>(slice_of(stage), line, line, first, last,
                                 [&](int r) TCNCA_INLINE { return row_values(first_ + r); });
    this->template load_rows<Bc>(slice_of(stage) + Br * line, line, line, first, last,
                                 [&](int r) TCNCA_INLINE { return column_values(from + r); });
    warp.commit();
  }

  /// Adds dS times the columns of a block to acc. On return, dp holds dS, if there are biases.
  TCNCA_HOST_DEVICE void add_block(float (&acc)[tiles][4], scores& dp, int stage, int from, int begin, int end,
                                   int column, int width) const {
    int const row = key_row(in.key_dim());
    [[maybe_unused]] typename base::keep_mask mask{};
    if constexpr (Shape.dropout) { mask = this->dropout_mask(from, begin, end); }
    scores s;
    base::clear(s);
    this->multiply_rows(s, shared_memory, block_of(stage), row, in.key_dim(), begin, end);
    this->template finish_scores<true>(s, dp, mask, numbers_of(stage), from);
    weights p;
    base::round_weights(p, s);
    this->template add_products<rows_are_queries>(acc, p, block_of(stage) + column, row, width, from, begin, end);
    if constexpr (biases) {
      TCNCA_UNROLL
      for (int i = 0; i < key_tiles; i++) {
        TCNCA_UNROLL
        for (int e = 0; e < 4; e++) dp[i][e] = s[i][e];
      }
    }
  }

  /// Adds the sums of a block's dS along its diagonals to sums[Br - 1 + column - row]. Each warp sums its rows in
  /// order, then the sums of the warps are added in order. `memory`: a slice that has been used. Called by all threads;
  /// two barriers.
  TCNCA_HOST_DEVICE void add_diagonals(scores const& derivative, A* memory, A* sums) const {
    int const own = this->rank() / warp_size;
    A *const rows = memory + own * 8 * derivative_row, *const warp_sums = memory + warps * 8 * derivative_row;
    A own_sums[3] = {0, 0, 0};
    group.sync();  // all warps have used the slice
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++)
        tcnca::store<2>(rows + mma_fragment::c(this->lane(), 0).row * derivative_row + 8 * n + this->column(),
                        base::row_pair(derivative[n], half));
      warp.sync();
      TCNCA_UNROLL
      for (int m = 0; m < 3; m++) {
        int const apart = this->lane() + m * warp_size - (M - 1) + 8 * half;  // column - row, the row of these 8
        for (int r = max_of(0, -apart); r < min_of(8, Bc - apart); r++)
          own_sums[m] += rows[r * derivative_row + apart + r];
      }
      warp.sync();
    }
    TCNCA_UNROLL
    for (int m = 0; m < 3; m++)
      if (this->lane() + m * warp_size < diagonals)
        warp_sums[own * diagonals + this->lane() + m * warp_size] = own_sums[m];
    group.sync();
    for (int x = group.rank(); x < Br + Bc - 1; x += Group::size()) {
      A sum = 0;
      for (int w = 0; w < warps; w++) {
        int const d = x - (Br - M) + w * M;  // of the warp's diagonals
        if (d >= 0 && d < diagonals) sum += warp_sums[w * diagonals + d];
      }
      sums[x] += sum;
    }
  }

  TCNCA_HOST_DEVICE void store_queries(float const (&acc)[tiles][4], int column, int width) const {
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = this->position(half);
      if (Shape.head_lengths ? i < chunk_.first || i >= chunk_.last : !this->query_exists(i)) continue;
      bool const attends = !Shape.head_lengths || this->query_exists(i);
      A const scale = this->scale(chunk_, i);
      T* const to =
          params.grad_q.at(chunk_.batch, chunk_.head, this->sequence_index(chunk_, i), column + this->column());
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n++)
        if (8 * n < width)
          this->store_pair(to + 8 * n,
                           attends ? base::row_pair(acc[n], half) * broadcast<2>(scale) : broadcast<2>(A(0)));
    }
  }
};

/// The gradient of the biases: the sums of the items of queries, added in their order. Item: 256 diagonals of a head,
/// each by one thread; no shared memory, no barriers.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_mma_biases_agent {
  using A = float;
  using group_type = Group;
  using queries = chunked_attention_mma_scores_agent<Group, T, Shape, Policy, attention_side::queries>;
  using params_type = chunked_attention_backward_params<T>;
  static constexpr index_t block = 256;
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) {
    return divide_up(2 * p.in.chunk - 1, block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return Shape.bias ? p.grad_bias.extent[0] * blocks(p) : 0;
  }
  static group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_mma_biases_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& in = params.in;
    index_t const head = item / blocks(params), from = item % blocks(params) * block, row = queries::bias_row(in.chunk);
    index_t const row_blocks = queries::row_blocks(params), blocks_per_head = in.chunks() * row_blocks;
    for (index_t d = from + group.rank(); d < min_of(from + block, 2 * in.chunk - 1); d += group.size()) {
      double sum = 0;  // fp64: there may be many items
      for (index_t b = 0; b < in.q.extent[0]; b++)
        for (index_t n = 0; n < blocks_per_head; n++) {
          index_t const x = d - (in.chunk - 1) + n % row_blocks * queries::Br + queries::Br - 1;
          if (x >= 0 && x < row)
            sum += double(params.bias_sums[((b * in.heads() + head) * blocks_per_head + n) * row + x]);
        }
      *params.grad_bias.at(head, d) = A(sum);
    }
  }
};

}  // namespace tcnca
