// What the agents of attention on tensor cores share. A group owns a block of Br rows (queries, or keys), 16 per warp;
// the other side's rows pass by in blocks of Bc, as the columns of the scores. Scores, weights and sums stay in
// registers as fragments (mma_fragment::c). Rows of T in shared memory are swizzled (swizzled_rows). A lane holds parts
// of two rows of its warp, the halves of a fragment: half 0 is row lane / 4, half 1 is row lane / 4 + 8.
#pragma once
#include "../block/agent.hpp"
#include "../block/mma.hpp"
#include "../block/online_softmax.hpp"
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_warps : attention_group<Group, T, Shape, Policy> {
  using base = attention_group<Group, T, Shape, Policy>;
  using base::group, base::in, base::softmax;
  using A = float;
  static constexpr int W = swizzled_rows::vector_elements;  // elements per asynchronous copy
  static constexpr int M = mma_fragment::rows, Br = Policy.query_block, Bc = Policy.key_block;
  static constexpr int bytes = int(sizeof(T)), line = swizzled_rows::line, key_tiles = Bc / mma_fragment::columns;
  static_assert(Policy.valid_tensor_cores() && Group::size() == Policy.threads,
                "tcnca::chunked_attention: a policy for tensor cores needs 16 queries a warp, keys in 16s up to 64, "
                "and values in 64s");
  using scores = detail::array<float[4], key_tiles>;  // a warp's rows x Bc columns
  using weights = detail::array<uint32[4], Bc / M>;   // the same rounded to T, as operands a of 16 columns each

  warp_of<Group> warp{};
  attention_chunk chunk_{};
  int first_ = 0, first_row_ = 0;  // position of the block's first row, and of the warp's

  TCNCA_HOST_DEVICE attention_warps(Group g, chunked_attention_inputs<T> const& inputs) : base{g, inputs} {}

  /// The thread's number; unsigned arithmetic, so that divisions become shifts.
  TCNCA_HOST_DEVICE int rank() const { return int(uint32(group.rank()) % uint32(Group::size())); }
  TCNCA_HOST_DEVICE int lane() const { return rank() % warp_size; }
  /// Position of this lane's row in the upper (0) or lower (1) half of its fragments; this lane's first column of 8.
  TCNCA_HOST_DEVICE int position(int half) const { return first_row_ + mma_fragment::c(lane(), 2 * half).row; }
  TCNCA_HOST_DEVICE int column() const { return mma_fragment::c(lane(), 0).column; }
  TCNCA_HOST_DEVICE static constexpr int key_row(int key_dim) { return round_up(key_dim, line); }
  TCNCA_HOST_DEVICE void set_row_block(int first) {
    first_ = first, first_row_ = first + warp.uniform(rank() / warp_size) * M;
  }

  // Shared memory: the block of rows [Br][key_row], then one or two stages of what passes by. Two, if they fit.
  TCNCA_HOST_DEVICE static constexpr int rows_bytes(int key_dim) { return Br * key_row(key_dim) * bytes; }
  TCNCA_HOST_DEVICE static constexpr int stages_that_fit(int key_dim, int stage_bytes) {
    // The agents of packed calls have a copy of their parameters in shared memory, too.
    size_t const rest = Policy.shared_memory_bytes - (Shape.packed ? 2048 : 0);
    return size_t(rows_bytes(key_dim) + 2 * stage_bytes) <= rest ? 2 : 1;
  }
  static group_memory memory_for(int key_dim, int stage_bytes) {
    return {.shared_memory_bytes =
                size_t(rows_bytes(key_dim)) + size_t(stages_that_fit(key_dim, stage_bytes) * stage_bytes)};
  }

  /// Software pipeline, called by all threads. load(n, stage) begins the copies of step n and commits them, process(n,
  /// stage) uses them. With two stages, the copies of step n + 1 are in flight while step n is processed. No barrier
  /// after the last step.
  template <class Load, class Process>
  TCNCA_HOST_DEVICE void pipeline(int steps, int stages, Load load, Process process) const {
    int const ahead = stages - 1;
    for (int n = -ahead; n < steps; n++) {
      warp.wait();
      group.sync();  // step n has landed; the buffer of the step before is free
      if (n + ahead < steps) load(n + ahead, (n + ahead) & ahead);
      if (n < 0) continue;
      if (ahead == 0) {
        warp.wait();
        group.sync();
      }
      process(n, n & ahead);
    }
  }

  /// Begins copies of columns [first, first + width) of Rows rows to `to`, `stride` apart; zeros from `end` on and
  /// where source(r) is null. Eight threads copy 128 bytes of a row. Called by all threads.
  template <int Rows, class Source>
  TCNCA_HOST_DEVICE void load_rows(T* to, int stride, int width, int first, int end, Source source) const {
    for (int r = rank() / 8; r < Rows; r += Group::size() / 8) {
      T const* const from = source(r);
      for (int c = rank() % 8 * W; c < width; c += line) {
        bool const present = from != nullptr && first + c < end;
        if (in.vectorizable) {
          warp.copy_16(warp.address(to) + (r * stride + swizzled_rows::offset(r, c)) * bytes,
                       present ? from + first + c : in.q.data, present);
        } else {
          TCNCA_UNROLL
          for (int e = 0; e < W; e++)
            to[r * stride + swizzled_rows::offset(r, c) + e] = present ? from[first + c + e] : T{0};
        }
      }
    }
  }
  /// Begins copies of the biases of a block's diagonals: to[x] is that of column - row = from - first_ + x - (Br - 1).
  /// Rows are queries, or, with sign -1, keys. Called by all threads.
  TCNCA_HOST_DEVICE void load_biases(A* to, int from, int sign = 1) const {
    for (int x = group.rank(); x < Br + Bc; x += Group::size()) {
      index_t const d = in.chunk - 1 + sign * (from - first_ + x - (Br - 1));
      bool const present = d >= 0 && d < in.bias.extent[1];
      warp.copy_4(warp.address(to + x), present ? in.bias.at(chunk_.head, d) : in.bias.data, present);
    }
  }

  /// s += rows . columns^T over `dim` elements, for the warp's rows and columns [16 begin, 16 end); rows are `stride`
  /// apart. All: every column, without branches, so that loads can be scheduled ahead of products. Called by a whole
  /// warp.
  template <bool All>
  TCNCA_HOST_DEVICE void multiply_rows(scores& s, T const* rows, T const* columns, int stride, int dim, int begin,
                                       int end) const {
    tile_position const a_at = mma_load::a(lane()), b_at = mma_load::b_of_columns(lane());
    auto const left = warp.address(rows) + (first_row_ - first_ + a_at.row) * stride * bytes,
               right = warp.address(columns) + b_at.row * stride * bytes;
    for (int d = 0; d < dim; d += 2 * M) {
      TCNCA_UNROLL
      for (int c = d; c < d + 2 * M; c += M) {
        uint32 a[4];
        warp.load_matrices(a, left + swizzled_rows::offset(a_at.row, c + a_at.column) * bytes);
        TCNCA_UNROLL
        for (int pair = 0; pair < key_tiles / 2; pair++) {
          if (!All && (pair < begin || pair >= end)) continue;
          uint32 b[4];
          warp.load_matrices(b, right + (pair * M * stride + swizzled_rows::offset(b_at.row, c + b_at.column)) * bytes);
          warp.template multiply<T>(s[2 * pair], a, b[0], b[1]);
          warp.template multiply<T>(s[2 * pair + 1], a, b[2], b[3]);
        }
      }
    }
  }
  TCNCA_HOST_DEVICE void multiply_rows(scores& s, T const* rows, T const* columns, int stride, int dim, int begin,
                                       int end) const {
    if (begin == 0 && end == Bc / M) multiply_rows<true>(s, rows, columns, stride, dim, begin, end);
    else multiply_rows<false>(s, rows, columns, stride, dim, begin, end);
  }

  /// Which of a lane's weights dropout keeps: bit 4 n + e of row[half] is that of s[n][2 half + e]. Computed before the
  /// scores, because Philox needs the registers that they occupy.
  struct keep_mask {
    uint32 row[2];
    TCNCA_HOST_DEVICE bool keeps(int half, int n, int e) const { return (row[half] & 1u << (4 * n + e)) != 0; }
  };
  /// Bits of the keys j .. j + 3 of query i; j a multiple of 4.
  TCNCA_HOST_DEVICE uint32 keep_bits(int i, int j) const {
    auto const random = this->dropout_words(chunk_, i, j);
    uint32 bits = 0;
    TCNCA_UNROLL
    for (int e = 0; e < 4; e++) bits |= in.dropout.keeps(random.word[e]) ? 1u << e : 0u;
    return bits;
  }
  /// The mask of columns [16 begin, 16 end) of the block at `from`; rows are queries. A lane has two of the four keys
  /// of a draw, in two rows: it draws for one row, its neighbour for the other. Called by a whole warp.
  TCNCA_HOST_DEVICE keep_mask dropout_mask(int from, int begin, int end) const {
    int const t = column(), odd = t / 2 % 2;
    uint32 own = 0;
    for (int n = 2 * begin; n < 2 * end; n++) own |= keep_bits(position(odd), from + 8 * n + t / 4 * 4) << 4 * n;
    uint32 const other = warp.shuffle_xor(own, 1);
    return {{(odd ? other : own) >> 2 * odd, (odd ? own : other) >> 2 * odd}};
  }
  TCNCA_HOST_DEVICE void apply_dropout(scores& s, keep_mask mask) const {
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++) {
      TCNCA_UNROLL
      for (int e = 0; e < 4; e++) s[n][e] *= mask.keeps(e / 2, n, e % 2) ? in.dropout.keep_scale : 0.f;
    }
  }

  /// Rounds weights to T: two neighbouring fragments c are one operand a.
  TCNCA_HOST_DEVICE static void round_weights(weights& p, scores const& s) {
    TCNCA_UNROLL
    for (int k = 0; k < Bc / M; k++) {
      TCNCA_UNROLL
      for (int r = 0; r < 4; r++)
        p[k][r] = element_pair<T>(s[2 * k + r / 2][r % 2 * 2], s[2 * k + r / 2][r % 2 * 2 + 1]);
    }
  }

  /// acc += p . (rows of the columns), the first `width` elements of rows `stride` apart; columns [16 begin, 16 end).
  /// All: every column and width, without branches. mixed: -1, or the step of 16 columns on the diagonal if it holds
  /// non-finite elements; with a window, a bit for each such step. There a column is masked for some of the warp's rows
  /// only, and 0 times a non-finite element would be NaN: add_non_finite adds such elements to the rows that see them,
  /// and the product takes 0 instead. Called by a whole warp.
  template <bool All, bool Below, int Tiles>
  TCNCA_HOST_DEVICE void add_products(detail::array<float[4], Tiles>& acc, weights const& p, T const* columns,
                                      int stride, int width, int from, int begin, int end, int mixed) const {
    tile_position const b_at = mma_load::b_of_rows(lane());
    auto const at = warp.address(columns) + b_at.row * stride * bytes;
    if constexpr (Shape.window) {
      for (int k = begin; !All && k < end; k++)
        if (is_mixed(mixed, k)) add_non_finite<Below>(acc, p, columns, stride, width, from, k);
    } else {
      if (!All && mixed >= 0) add_non_finite<Below>(acc, p, columns, stride, width, from, mixed);
    }
    TCNCA_UNROLL
    for (int k = 0; k < Bc / M; k++) {
      if (!All && (k < begin || k >= end)) continue;
      TCNCA_UNROLL
      for (int l = 0; l < 8 * Tiles; l += line) {
        if (!All && l >= width) continue;
        TCNCA_UNROLL
        for (int c = 0; c < line; c += M) {
          uint32 b[4];
          warp.load_matrices_transposed(
              b, at + (k * M * stride + l) * bytes + swizzled_rows::offset(b_at.row, c + b_at.column) * bytes);
          if (!All && is_mixed(mixed, k)) {
            TCNCA_UNROLL
            for (int r = 0; r < 4; r++) b[r] = zero_non_finite(b[r]);
          }
          warp.template multiply<T>(acc[(l + c) / 8], p[k], b[0], b[1]);
          warp.template multiply<T>(acc[(l + c) / 8 + 1], p[k], b[2], b[3]);
        }
      }
    }
  }
  /// The same for the block of columns at `from`. Below (causal): a row sees the columns up to its own position, else
  /// from it on.
  template <bool Below, int Tiles>
  TCNCA_HOST_DEVICE void add_products(detail::array<float[4], Tiles>& acc, weights const& p, T const* columns,
                                      int stride, int width, int from, int begin, int end) const {
    int const diagonal = (first_row_ - from) / M;
    bool const on_diagonal = Shape.causal && first_row_ >= from && begin <= diagonal && diagonal < end;
    int mixed = on_diagonal && has_non_finite(columns + diagonal * M * stride, stride, width) ? diagonal : -1;
    if constexpr (Shape.window) {
      mixed = mixed < 0 ? 0 : 1 << mixed;
      // The columns at the other end of the rows' windows are in up to two steps.
      int const edge = first_row_ + (Below ? 1 - in.window : in.window - 1) - from;
      for (int k = max_of(begin, edge / M); k < min_of(end, (edge + M - 1) / M + 1); k++)
        if (has_non_finite(columns + k * M * stride, stride, width)) mixed |= 1 << k;
    }
    if (begin == 0 && end == Bc / M && width == 8 * Tiles && mixed == (Shape.window ? 0 : -1))
      add_products<true, Below>(acc, p, columns, stride, width, from, begin, end, mixed);
    else add_products<false, Below>(acc, p, columns, stride, width, from, begin, end, mixed);
  }
  TCNCA_HOST_DEVICE static bool is_mixed(int mixed, int k) { return Shape.window ? (mixed >> k & 1) != 0 : k == mixed; }

  /// Whether 16 rows hold an infinity or a NaN. Called by a whole warp; all lanes get the same.
  TCNCA_HOST_DEVICE bool has_non_finite(T const* rows, int stride, int width) const {
    bool found = false;
    for (int i = lane(); i < M * divide_up(width, W); i += warp_size) {
      int const r = i % M, c = i / M * W;
      auto const v = tcnca::load<W>(rows + r * stride + swizzled_rows::offset(r, c));
      TCNCA_UNROLL
      for (int e = 0; e < W; e++) found = found || !is_finite(v.lane(e));
    }
    return warp.any(found);
  }
  /// Adds what the non-finite elements of one step of 16 columns contribute to the rows that see them. Rare, so short
  /// code rather than fast.
  template <bool Below, int Tiles>
  TCNCA_HOST_DEVICE void add_non_finite(detail::array<float[4], Tiles>& acc, weights const& p, T const* columns,
                                        int stride, int width, [[maybe_unused]] int from, int step) const {
    uint32 a[4] = {0, 0, 0, 0};
    TCNCA_UNROLL
    for (int k = 0; k < Bc / M; k++) {
      TCNCA_UNROLL
      for (int r = 0; r < 4; r++) a[r] = k == step ? p[k][r] : a[r];
    }
    columns += step * M * stride;
    for (int n = 0; n < M; n++) {  // two columns are one register of one of the four lanes that share rows
      int const other = n / 4, right = n / 2 % 2, c = mma_fragment::a(lane() ^ other, 2 * right).column + n % 2;
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        float const weight = element_of_pair<T>(warp.shuffle_xor(right ? a[2 + half] : a[half], other), n % 2);
        int const r = mma_fragment::c(lane(), 2 * half).row;
        if constexpr (Shape.window) {
          int const ahead = Below ? first_row_ + r - (from + step * M + c) : from + step * M + c - (first_row_ + r);
          if (ahead < 0 || ahead >= in.window) continue;
        } else {
          if (Below ? c > r : c < r) continue;
        }
        TCNCA_UNROLL
        for (int m = 0; m < Tiles; m++) {
          if (8 * m >= width) continue;
          auto const v = tcnca::load<2>(columns + c * stride + swizzled_rows::offset(c, 8 * m) + column());
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) acc[m][2 * half + e] += is_finite(v.lane(e)) ? 0.f : weight * v.lane(e);
        }
      }
    }
  }
  /// The lowest bits of two packed elements, set for infinities and NaNs: adding 1 to an exponent of all ones carries
  /// into the sign bit.
  TCNCA_HOST_DEVICE static uint32 non_finite(uint32 pair) {
    constexpr uint32 exponent_one = same<T, bf16> ? 0x00800080 : 0x04000400;
    return ((pair & 0x7fff7fffu) + exponent_one) >> 15 & 0x00010001u;
  }
  /// Two packed elements with 0 in place of infinities and NaNs.
  TCNCA_HOST_DEVICE static uint32 zero_non_finite(uint32 pair) { return pair & ~(non_finite(pair) * 0xffffu); }

  /// A step of the transposition of the words of four lanes: pairs of words, and of lanes, that are Apart. `number`: of
  /// the lane in its row. Called by a whole warp.
  template <int Apart>
  TCNCA_HOST_DEVICE void exchange(uint32 (&word)[4], int number) const {
    bool const upper = (number & Apart) != 0;
    TCNCA_UNROLL
    for (int k = 0; k < 4; k++) {
      if ((k & Apart) != 0) continue;
      uint32 const other = warp.shuffle_xor(upper ? word[k] : word[k + Apart], Apart);
      word[k] = upper ? other : word[k], word[k + Apart] = upper ? word[k + Apart] : other;
    }
  }
  template <int N>
  TCNCA_HOST_DEVICE static void clear(detail::array<float[4], N>& c) {
    TCNCA_UNROLL
    for (int n = 0; n < N; n++) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
  }
  /// The two neighbouring elements of a fragment c in one half.
  TCNCA_HOST_DEVICE static pack<float, 2> row_pair(float const (&c)[4], int half) {
    pack<float, 2> x;
    x.set_lane(0, c[2 * half]), x.set_lane(1, c[2 * half + 1]);
    return x;
  }
  TCNCA_HOST_DEVICE void store_pair(T* to, pack<A, 2> v) const {
    if (in.vectorizable) tcnca::store<2>(to, v);
    else store_some<2>(to, 1, 2, v);
  }
  /// Of a query and a key.
  TCNCA_HOST_DEVICE static A distance(int i, int j) { return A(i < j ? j - i : i - j); }
  TCNCA_HOST_DEVICE static float infinity() { return tcnca::detail::infinity<float>(); }
  TCNCA_HOST_DEVICE static bool is_finite(float x) { return x - x == 0; }
};

}  // namespace tcnca::detail
