// What the agents of attention on tensor cores share. A group has a block of rows (queries or keys), 16 for each warp; the other side's rows pass
// by in blocks, as columns of the scores. Scores, weights and sums stay in registers, as fragments c; rows of T are swizzled in fast memory.
#pragma once
#include "../block/mma.hpp"
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_warps : attention_group<Group, T, Shape, Policy> {
  using base = attention_group<Group, T, Shape, Policy>;
  using base::group, base::in, base::softmax;
  using A = float;
  static constexpr int W = swizzled_rows::vector_elements;  // elements of one copy
  static constexpr int M = mma_fragment::rows, R = Policy.queries, C = Policy.keys;
  static constexpr int bytes = int(sizeof(T)), line = swizzled_rows::line, key_tiles = C / mma_fragment::columns;
  static_assert(key_tiles <= 8 && Group::size() % warp_size == 0 && R == M * (Group::size() / warp_size) &&
                    C % M == 0 && Policy.value_tile % line == 0,
                "tcnca::chunked_attention: a policy for tensor cores needs 16 queries a warp, keys in 16s up to 64, "
                "and values in 64s");
  using scores = detail::array<float[4], key_tiles>;  // of the warp's rows and a block of columns
  using weights = detail::array<uint32[4], C / M>;    // the same as elements, a fragment a for 16 columns

  warp_of<Group> warp{};
  attention_chunk chunk_{};
  int first_ = 0, first_row_ = 0;  // position of the block's first row, and of the warp's

  TCNCA_HOST_DEVICE attention_warps(Group g, chunked_attention_inputs<T> const& inputs) : base{g, inputs} {}

  /// The thread's number, known not to be negative: divisions are shifts.
  TCNCA_HOST_DEVICE int rank() const { return int(uint32(group.rank()) % uint32(Group::size())); }
  TCNCA_HOST_DEVICE int lane() const { return rank() % warp_size; }
  /// Position of this lane's row g, or g + 8; its first column of 8.
  TCNCA_HOST_DEVICE int position(int half) const { return first_row_ + mma_fragment::c(lane(), 2 * half).row; }
  TCNCA_HOST_DEVICE int column() const { return mma_fragment::c(lane(), 0).column; }
  TCNCA_HOST_DEVICE static constexpr int key_row(int key_dim) { return round_up(key_dim, line); }
  TCNCA_HOST_DEVICE void begin_rows(int first) {
    first_ = first, first_row_ = first + warp.uniform(rank() / warp_size) * M;
  }

  /// Columns [first, first + width) of rows of the caller's, zeros past `end` and where source(r) is null. Eight threads copy 128 bytes.
  template <int Rows, class Source>
  TCNCA_HOST_DEVICE void load_rows(T* to, int row, int width, int first, int end, Source source) const {
    for (int r = rank() / 8; r < Rows; r += Group::size() / 8) {
      T const* const from = source(r);
      for (int c = rank() % 8 * W; c < width; c += line) {
        bool const present = from != nullptr && first + c < end;
        if (in.vectorizable) {
          warp.copy_16(warp.place(to) + (r * row + swizzled_rows::offset(r, c)) * bytes,
                       present ? from + first + c : in.q.data, present);
        } else {
          TCNCA_UNROLL
          for (int e = 0; e < W; e++)
            to[r * row + swizzled_rows::offset(r, c) + e] = present ? from[first + c + e] : T{0};
        }
      }
    }
  }
  /// Adds to s the products of the warp's rows with columns [16 begin, 16 end): `dim` elements of rows that stand `row` apart.
  /// Whole: all columns, without branches, so that loads run ahead of products.
  template <bool Whole>
  TCNCA_HOST_DEVICE void multiply_rows(scores& s, T const* rows, T const* columns, int row, int dim, int begin,
                                       int end) const {
    tile_position const a_at = mma_load::a(lane()), b_at = mma_load::b_of_columns(lane());
    auto const left = warp.place(rows) + (first_row_ - first_ + a_at.row) * row * bytes,
               right = warp.place(columns) + b_at.row * row * bytes;
    for (int d = 0; d < dim; d += 2 * M) {
      TCNCA_UNROLL
      for (int c = d; c < d + 2 * M; c += M) {
        uint32 a[4];
        warp.load(a, left + swizzled_rows::offset(a_at.row, c + a_at.column) * bytes);
        TCNCA_UNROLL
        for (int pair = 0; pair < key_tiles / 2; pair++) {
          if (!Whole && (pair < begin || pair >= end)) continue;
          uint32 b[4];
          warp.load(b, right + (pair * M * row + swizzled_rows::offset(b_at.row, c + b_at.column)) * bytes);
          warp.template multiply<T>(s[2 * pair], a, b[0], b[1]);
          warp.template multiply<T>(s[2 * pair + 1], a, b[2], b[3]);
        }
      }
    }
  }
  TCNCA_HOST_DEVICE void multiply_rows(scores& s, T const* rows, T const* columns, int row, int dim, int begin,
                                       int end) const {
    if (begin == 0 && end == C / M) multiply_rows<true>(s, rows, columns, row, dim, begin, end);
    else multiply_rows<false>(s, rows, columns, row, dim, begin, end);
  }

  /// Which of a lane's weights dropout keeps: bit 4 n + e, for the rows g and g + 8. Before the scores, whose registers it needs.
  struct keep_mask {
    uint32 row[2];
    TCNCA_HOST_DEVICE bool has(int half, int n, int e) const { return (row[half] & 1u << (4 * n + e)) != 0; }
  };
  /// The draw for keys j .. j + 3 of query i, a bit each.
  TCNCA_HOST_DEVICE uint32 kept_of_keys(int i, int j) const {
    auto const drawn = this->random_words(chunk_, i, j);
    uint32 kept = 0;
    TCNCA_UNROLL
    for (int e = 0; e < 4; e++) kept |= this->dropout(drawn.word[e]) != 0 ? 1u << e : 0u;
    return kept;
  }
  /// For columns [16 begin, 16 end). A lane has two of four neighbouring keys in two rows: it draws for one row, its neighbour for the other.
  TCNCA_HOST_DEVICE keep_mask draw(int from, int begin, int end) const {
    int const t = column(), odd = t / 2 % 2;
    uint32 mine = 0;
    for (int n = 2 * begin; n < 2 * end; n++) mine |= kept_of_keys(position(odd), from + 8 * n + t / 4 * 4) << 4 * n;
    uint32 const other = warp.exchange(mine, 1);
    return {{(odd ? other : mine) >> 2 * odd, (odd ? mine : other) >> 2 * odd}};
  }
  TCNCA_HOST_DEVICE void drop(scores& s, keep_mask keep) const {
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++) {
      TCNCA_UNROLL
      for (int e = 0; e < 4; e++) s[n][e] *= keep.has(e / 2, n, e % 2) ? in.keep_scale : 0.f;
    }
  }

  /// The weights as elements, a fragment a for 16 keys: two neighbouring fragments c.
  TCNCA_HOST_DEVICE static void narrow(weights& p, scores const& s) {
    TCNCA_UNROLL
    for (int k = 0; k < C / M; k++) {
      TCNCA_UNROLL
      for (int r = 0; r < 4; r++)
        p[k][r] = element_pair<T>(s[2 * k + r / 2][r % 2 * 2], s[2 * k + r / 2][r % 2 * 2 + 1]);
    }
  }

  /// Adds to acc the products of the weights with `width` elements of the columns' rows, `row` apart, of which [16 begin, 16 end) count.
  /// `special`: of one step, or -1. There, on the diagonal, a column is masked for some of the warp's rows only, and has an infinite or NaN
  /// element. That must not meet the weight 0: it is left out, and added to the rows that see it.
  template <bool Whole, bool Below, int Tiles>
  TCNCA_HOST_DEVICE void add_products(detail::array<float[4], Tiles>& acc, weights const& p, T const* columns, int row,
                                      int width, int begin, int end, int special) const {
    tile_position const b_at = mma_load::b_of_rows(lane());
    auto const at = warp.place(columns) + b_at.row * row * bytes;
    if (!Whole && special >= 0) add_special<Below>(acc, p, columns, row, width, special);
    TCNCA_UNROLL
    for (int k = 0; k < C / M; k++) {
      if (!Whole && (k < begin || k >= end)) continue;
      TCNCA_UNROLL
      for (int l = 0; l < 8 * Tiles; l += line) {
        if (!Whole && l >= width) continue;
        TCNCA_UNROLL
        for (int c = 0; c < line; c += M) {
          uint32 b[4];
          warp.load_transposed(
              b, at + (k * M * row + l) * bytes + swizzled_rows::offset(b_at.row, c + b_at.column) * bytes);
          if (!Whole && k == special) {
            TCNCA_UNROLL
            for (int r = 0; r < 4; r++) b[r] = finite_only(b[r]);
          }
          warp.template multiply<T>(acc[(l + c) / 8], p[k], b[0], b[1]);
          warp.template multiply<T>(acc[(l + c) / 8 + 1], p[k], b[2], b[3]);
        }
      }
    }
  }
  /// Below: a row sees the columns up to its own number, else from it on.
  template <bool Below, int Tiles>
  TCNCA_HOST_DEVICE void add_products(detail::array<float[4], Tiles>& acc, weights const& p, T const* columns, int row,
                                      int width, int from, int begin, int end) const {
    int const diagonal = (first_row_ - from) / M;
    bool const mixed = Shape.causal && first_row_ >= from && begin <= diagonal && diagonal < end;
    int const special = mixed && holds_special(columns + diagonal * M * row, row, width) ? diagonal : -1;
    if (begin == 0 && end == C / M && width == 8 * Tiles && special < 0)
      add_products<true, Below>(acc, p, columns, row, width, begin, end, special);
    else add_products<false, Below>(acc, p, columns, row, width, begin, end, special);
  }

  /// Whether 16 rows hold an infinity or a NaN.
  TCNCA_HOST_DEVICE bool holds_special(T const* rows, int row, int width) const {
    bool found = false;
    for (int i = lane(); i < M * divide_up(width, W); i += warp_size) {
      int const r = i % M, c = i / M * W;
      auto const v = tcnca::load<W>(rows + r * row + swizzled_rows::offset(r, c));
      TCNCA_UNROLL
      for (int e = 0; e < W; e++) found = found || !is_finite(v.lane(e));
    }
    return warp.any(found);
  }
  /// What the infinite and NaN elements of 16 columns, on the diagonal of the warp's rows, add to the rows that see them. Rare: short code.
  template <bool Below, int Tiles>
  TCNCA_HOST_DEVICE void add_special(detail::array<float[4], Tiles>& acc, weights const& p, T const* columns, int row,
                                     int width, int step) const {
    uint32 a[4] = {0, 0, 0, 0};
    TCNCA_UNROLL
    for (int k = 0; k < C / M; k++) {
      TCNCA_UNROLL
      for (int r = 0; r < 4; r++) a[r] = k == step ? p[k][r] : a[r];
    }
    columns += step * M * row;
    for (int n = 0; n < M; n++) {  // a pair of columns is one register of one of the four lanes that share rows
      int const other = n / 4, right = n / 2 % 2, c = mma_fragment::a(lane() ^ other, 2 * right).column + n % 2;
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        float const weight = element_of_pair<T>(warp.exchange(right ? a[2 + half] : a[half], other), n % 2);
        int const r = mma_fragment::c(lane(), 2 * half).row;
        if (Below ? c > r : c < r) continue;
        TCNCA_UNROLL
        for (int m = 0; m < Tiles; m++) {
          if (8 * m >= width) continue;
          auto const v = tcnca::load<2>(columns + c * row + swizzled_rows::offset(c, 8 * m) + column());
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) acc[m][2 * half + e] += is_finite(v.lane(e)) ? 0.f : weight * v.lane(e);
        }
      }
    }
  }
  /// Of two elements those that are finite; 0 in place of the others.
  TCNCA_HOST_DEVICE static uint32 finite_only(uint32 pair) {
    constexpr uint32 least =
        same<T, bf16> ? 0x00800080 : 0x04000400;  // carries from an exponent of ones to the sign's place
    return pair & ~((((pair & 0x7fff7fffu) + least) >> 15 & 0x00010001u) * 0xffffu);
  }

  template <int N>
  TCNCA_HOST_DEVICE static void clear(detail::array<float[4], N>& c) {
    TCNCA_UNROLL
    for (int n = 0; n < N; n++) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
  }
  /// What a fragment c has of row g, or g + 8.
  TCNCA_HOST_DEVICE static pack<float, 2> of_row(float const (&c)[4], int half) {
    pack<float, 2> x;
    x.set_lane(0, c[2 * half]), x.set_lane(1, c[2 * half + 1]);
    return x;
  }
  TCNCA_HOST_DEVICE static float infinity() { return tcnca::detail::infinity<float>(); }
  TCNCA_HOST_DEVICE static bool is_finite(float x) { return x - x == 0; }
  TCNCA_HOST_DEVICE static float power(float x) { return tcnca::exp2_or_zero(x * 1.44269504f); }  // e^x
  /// The larger; of a NaN and a number, the number.
  TCNCA_HOST_DEVICE static float max_or_number(float a, float b) {
#if defined(__CUDACC__)
    return ::fmaxf(a, b);
#else
    return __builtin_fmaxf(a, b);
#endif
  }
};

}  // namespace tcnca::detail
