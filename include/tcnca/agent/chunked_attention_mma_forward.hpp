// The forward pass on tensor cores, for 16-bit elements: a group takes a block of queries past its keys, each warp 16 of the queries. Scores,
// weights and the output stay in registers, keys and values come to fast memory while the block before them is worked on.
// After FlashAttention-2 (arXiv 2307.08691), with the output's columns shared out to items, as values are much wider than keys.
#pragma once
#include "../block/mma.hpp"
#include "chunked_attention_forward.hpp"

namespace tcnca {

/// The forward pass of one item: a block of 16 queries a warp, and a tile of the value dimension; the same results as the generic agent, but
/// that weights are rounded to T before they meet the values (relu2 in fp16: a weight above 65504 is infinite).
/// Fast memory: the queries; one or two stages of a block of keys, a tile of its values and the biases of its diagonals. Rows of T are swizzled.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_mma_forward_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using base::group, base::in, base::softmax;
  using A = float;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int W = swizzled_rows::piece;  // elements of one copy
  static constexpr int M = mma_fragment::rows, R = Policy.queries, C = Policy.keys, columns = Policy.value_tile;
  static constexpr int bytes = int(sizeof(T)), line = swizzled_rows::line, tiles = columns / mma_fragment::columns, key_tiles = C / mma_fragment::columns;
  static_assert(key_tiles <= 8 && Group::size() % warp_size == 0 && R == M * (Group::size() / warp_size) && C % M == 0 && columns % line == 0,
                "tcnca::chunked_attention: a policy for tensor cores needs 16 queries a warp, keys in 16s up to 64, and values in 64s");

  params_type const& params;
  T* near;
  TCNCA_HOST_DEVICE chunked_attention_mma_forward_agent(Group g, params_type const& p, A* near_memory, A*)
      : base{g, p.in}, params(p), near(reinterpret_cast<T*>(near_memory)) {}

  TCNCA_HOST_DEVICE static constexpr index query_blocks(params_type const& p) { return divide_up(p.in.chunk, index(R)); }
  TCNCA_HOST_DEVICE static constexpr index value_tiles(params_type const& p) { return divide_up(index(p.in.value_dim()), index(columns)); }
  TCNCA_HOST_DEVICE static constexpr index items(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.chunks() * query_blocks(p) * value_tiles(p);
  }

  TCNCA_HOST_DEVICE static constexpr int key_row(int key_dim) { return round_up(key_dim, line); }
  TCNCA_HOST_DEVICE static constexpr int stage_elements(int key_dim) { return C * (key_row(key_dim) + columns); }
  TCNCA_HOST_DEVICE static constexpr int near_elements(int key_dim, int stages) {
    return R * key_row(key_dim) + stages * (stage_elements(key_dim) + (Shape.bias ? (R + C) * int(sizeof(A) / sizeof(T)) : 0));
  }
  /// Two, where they fit.
  TCNCA_HOST_DEVICE static constexpr int stages(int key_dim) { return size(near_elements(key_dim, 2)) * sizeof(T) <= Policy.near_bytes ? 2 : 1; }
  static chunked_attention_forward_plan plan_for(int key_dim, int) {
    chunked_attention_forward_plan plan;
    plan.near = size(near_elements(key_dim, stages(key_dim))) * sizeof(T) / sizeof(A);
    return plan;
  }

  TCNCA_HOST_DEVICE void operator()(index item) {
    index const blocks = query_blocks(params);
    int const value_tile = int(item % value_tiles(params));
    // The last queries of a causal chunk see the most keys: they come first, so that the threads end together.
    first_ = int(blocks - 1 - item / value_tiles(params) % blocks) * R;
    chunk_ = this->chunk_of(item / value_tiles(params) / blocks);
    begin_ = max(first_, chunk_.first), end_ = min(first_ + R, chunk_.last);
    if (begin_ >= end_) return;
    first_row_ = first_ + warp.uniform(group.rank() / warp_size) * M;
    column_ = value_tile * columns;
    columns_ = min(columns, in.value_dim() - column_);
    walk();
  }

 private:
  detail::attention_chunk chunk_;
  warp_of<Group> warp;
  int first_, first_row_;  // position of the block's first row, and of the warp's
  int begin_, end_;       // of the queries that exist
  int column_, columns_;  // of the values

  /// The output of a warp's queries: of fragments c, one for 8 columns; running maximum and sum of the rows g and g + 8 (sums: this lane's part).
  struct accumulators {
    float o[tiles][4], most[2], sum[2];
  };

  TCNCA_HOST_DEVICE int lane() const { return group.rank() % warp_size; }
  TCNCA_HOST_DEVICE int position(int half) const { return first_row_ + mma_fragment::c(lane(), 2 * half).row; }
  TCNCA_HOST_DEVICE T* queries() const { return near; }
  TCNCA_HOST_DEVICE T* keys(int stage) const { return near + R * key_row(in.key_dim()) + stage * stage_elements(in.key_dim()); }
  TCNCA_HOST_DEVICE T* values_of(int stage) const { return keys(stage) + C * key_row(in.key_dim()); }
  TCNCA_HOST_DEVICE A* biases(int stage) const { return reinterpret_cast<A*>(keys(stages(in.key_dim()))) + stage * (R + C); }

  TCNCA_HOST_DEVICE void walk() {
    int const visible = this->visible(chunk_, end_ - 1), blocks = divide_up(visible, C), ahead = stages(in.key_dim()) - 1;
    // Keys that some query of this warp sees.
    int const last = min(first_row_ + M, end_) - 1;
    int const seen = last < max(begin_, first_row_) ? 0 : this->visible(chunk_, last);
    accumulators acc;
    clear(acc.o);
    acc.most[0] = acc.most[1] = -infinity(), acc.sum[0] = acc.sum[1] = 0;
    if (blocks > 0) {
      load_rows<R>(queries(), key_row(in.key_dim()), round_up(in.key_dim(), 2 * M), 0, in.key_dim(),
                   [&](int r) TCNCA_INLINE { return first_ + r >= begin_ && first_ + r < end_ ? this->query(chunk_, first_ + r) : nullptr; });
    }
    // One turn loads a block and works on the one before (two stages), or loads a block and works on it.
    for (int n = -ahead; n < blocks; n++) {
      int const from = n * C, stage = n & ahead;
      warp.wait();
      group.sync();  // this block has come, and the one before is done with
      if (n + ahead < blocks) load_stage((n + ahead) & ahead, from + ahead * C, visible);
      if (n < 0) continue;
      if (ahead == 0) {
        warp.wait();
        group.sync();
      }
      int const steps = min(C / M, divide_up(max(0, seen - from), M));
      if (steps > 0) {
        [[maybe_unused]] kept_weights kept{};
        if constexpr (Shape.dropout) kept = draw(from);
        float s[key_tiles][4];
        // Whole blocks go without branches, so that loads run ahead of products.
        if (steps == C / M) score<true>(s, stage, steps);
        else score<false>(s, stage, steps);
        weigh(s, acc, stage, from);
        if constexpr (Shape.dropout) drop(s, kept);
        bool const special = Shape.causal && from + steps * M > first_row_ && holds_special(values_of(stage), (steps - 1) * M);
        uint32 p[C / M][4];
        narrow(p, s);
        if (steps == C / M && columns_ == columns && !special) add_products<true>(p, acc, values_of(stage), steps, false);
        else add_products<false>(p, acc, values_of(stage), steps, special);
      }
    }
    finish(acc);
    group.sync();  // the next item reuses the memory
  }

  /// Columns [first, first + width) of rows of the caller's, zeros past `end` and where source(r) is null. Eight threads copy 128 bytes.
  template <int Rows, class Source>
  TCNCA_HOST_DEVICE void load_rows(T* to, int row, int width, int first, int end, Source source) const {
    for (int r = group.rank() / 8; r < Rows; r += Group::size() / 8) {
      T const* const from = source(r);
      for (int c = group.rank() % 8 * W; c < width; c += line) {
        bool const present = from != nullptr && first + c < end;
        if (in.wide) {
          warp.copy_16(warp.place(to) + (r * row + swizzled_rows::offset(r, c)) * bytes, present ? from + first + c : in.q.data, present);
        } else {
          TCNCA_UNROLL
          for (int e = 0; e < W; e++) to[r * row + swizzled_rows::offset(r, c) + e] = present ? from[first + c + e] : T{0};
        }
      }
    }
  }
  /// The keys from `from` on, their values, and the biases of the diagonals, falling from the block's last query and first key.
  TCNCA_HOST_DEVICE void load_stage(int stage, int from, int visible) const {
    load_rows<C>(keys(stage), key_row(in.key_dim()), round_up(in.key_dim(), 2 * M), 0, in.key_dim(),
                 [&](int r) TCNCA_INLINE { return from + r < visible ? this->key(chunk_, from + r) : nullptr; });
    load_rows<C>(values_of(stage), columns, round_up(columns_, line), column_, column_ + columns_,
                 [&](int r) TCNCA_INLINE { return from + r < visible ? this->values(chunk_, from + r) : nullptr; });
    if constexpr (Shape.bias) {
      for (int x = group.rank(); x < R + C; x += Group::size()) {
        index const d = in.chunk - 1 + from - first_ + x - (R - 1);
        bool const present = d >= 0 && d < in.bias.extent[1];
        warp.copy_4(warp.place(biases(stage) + x), present ? in.bias.at(chunk_.head, d) : in.bias.data, present);
      }
    }
    warp.commit();
  }

  /// Products of the warp's queries with the first 16 steps keys of a block; the others are zero.
  template <bool Whole>
  TCNCA_HOST_DEVICE void score(float (&s)[key_tiles][4], int stage, int steps) const {
    clear(s);
    int const row = key_row(in.key_dim());
    tile_position const qa = mma_load::a(lane()), kb = mma_load::b_of_columns(lane());
    auto const query = warp.place(queries()) + (first_row_ - first_ + qa.row) * row * bytes, key = warp.place(keys(stage)) + kb.row * row * bytes;
    for (int d = 0; d < in.key_dim(); d += 2 * M) {
      TCNCA_UNROLL
      for (int c = d; c < d + 2 * M; c += M) {
        uint32 a[4];
        warp.load(a, query + swizzled_rows::offset(qa.row, c + qa.column) * bytes);
        TCNCA_UNROLL
        for (int pair = 0; pair < key_tiles / 2; pair++) {
          if (!Whole && pair >= steps) continue;
          uint32 b[4];
          warp.load(b, key + (pair * M * row + swizzled_rows::offset(kb.row, c + kb.column)) * bytes);
          warp.template multiply<T>(s[2 * pair], a, b[0], b[1]);
          warp.template multiply<T>(s[2 * pair + 1], a, b[2], b[3]);
        }
      }
    }
  }

  /// Scores to weights, with the running statistics of softmax.
  TCNCA_HOST_DEVICE void weigh(float (&s)[key_tiles][4], accumulators& acc, int stage, int from) const {
    int const t = mma_fragment::c(lane(), 0).column;
    bool const masked = from + C > this->visible(chunk_, first_row_);
    A factor[2];
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = position(half), end = this->visible(chunk_, i) - from - t;  // of this lane's keys
      A const scale = softmax ? in.scale : this->scale(chunk_, i);
      TCNCA_UNROLL
      for (int n = 0; n < key_tiles; n++) {
        pack<A, 2> x = of_row(s[n], half) * broadcast<2>(scale);
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) {
          if constexpr (Shape.bias) x.set_lane(e, x.lane(e) + biases(stage)[R - 1 - (i - first_) + 8 * n + t + e]);
          if constexpr (softmax) x.set_lane(e, masked && 8 * n + e >= end ? -infinity() : x.lane(e));
        }
        if constexpr (!softmax) {
          x = detail::attention_weight<Shape.function>(x).value;
          TCNCA_UNROLL
          for (int e = 0; e < 2; e++) x.set_lane(e, masked && 8 * n + e >= end ? 0.f : x.lane(e));
        }
        s[n][2 * half] = x.lane(0), s[n][2 * half + 1] = x.lane(1);
      }
      if constexpr (softmax) factor[half] = normalize(s, acc, half);
    }
    if constexpr (softmax) {
      if (warp.any(factor[0] != 1 || factor[1] != 1)) {  // soon the maxima are found, and this is rare
        TCNCA_UNROLL
        for (int n = 0; n < tiles; n++) {
          TCNCA_UNROLL
          for (int e = 0; e < 4; e++) acc.o[n][e] *= factor[e / 2];
        }
      }
    }
  }
  /// e^(score - maximum) for one of this lane's rows; gives what the sums so far are to be multiplied by.
  TCNCA_HOST_DEVICE A normalize(float (&s)[key_tiles][4], accumulators& acc, int half) const {
    float most = acc.most[half];
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++) most = larger(most, larger(s[n][2 * half], s[n][2 * half + 1]));
    most = larger(most, warp.exchange(most, 1));
    most = larger(most, warp.exchange(most, 2));
    // With nothing seen yet, or only -infinity, any finite number will do.
    float const zero_point = most == -infinity() ? 0.f : most, factor = power(acc.most[half] - zero_point);
    float even = acc.sum[half] * factor, odd = 0;
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++) {
      even += s[n][2 * half] = power(s[n][2 * half] - zero_point);
      odd += s[n][2 * half + 1] = power(s[n][2 * half + 1] - zero_point);
    }
    acc.most[half] = most, acc.sum[half] = even + odd;
    return factor;
  }

  /// Which of a lane's weights dropout keeps: bit 4 n + e, for the rows g and g + 8. Before the scores, whose registers it needs.
  struct kept_weights {
    uint32 row[2];
  };
  /// A lane has two of four neighbouring keys in two rows: it draws for one row, its neighbour for the other.
  TCNCA_HOST_DEVICE kept_weights draw(int from) const {
    int const t = mma_fragment::c(lane(), 0).column, odd = t / 2 % 2;
    uint32 mine = 0;
    for (int n = 0; n < key_tiles; n++) {
      auto const drawn = this->dropout(chunk_, position(odd), from + 8 * n + t / 4 * 4);
      TCNCA_UNROLL
      for (int e = 0; e < 4; e++) mine |= uint32(drawn.factor[e] != 0) << (4 * n + e);
    }
    uint32 const other = warp.exchange(mine, 1);
    return {{(odd ? other : mine) >> 2 * odd, (odd ? mine : other) >> 2 * odd}};
  }
  TCNCA_HOST_DEVICE void drop(float (&s)[key_tiles][4], kept_weights kept) const {
    TCNCA_UNROLL
    for (int n = 0; n < key_tiles; n++) {
      TCNCA_UNROLL
      for (int e = 0; e < 4; e++) s[n][e] *= kept.row[e / 2] >> (4 * n + e % 2) & 1 ? in.kept : 0.f;
    }
  }

  /// The weights as elements, a fragment a for 16 keys: two neighbouring fragments c.
  TCNCA_HOST_DEVICE static void narrow(uint32 (&p)[C / M][4], float const (&s)[key_tiles][4]) {
    TCNCA_UNROLL
    for (int k = 0; k < C / M; k++) {
      TCNCA_UNROLL
      for (int r = 0; r < 4; r++) p[k][r] = element_pair<T>(s[2 * k + r / 2][r % 2 * 2], s[2 * k + r / 2][r % 2 * 2 + 1]);
    }
  }

  /// Adds the products of the weights with the values. `special`: a key that is masked for some of the warp's rows only (they are in the last
  /// step, on the diagonal) has an infinite or NaN value. That must not meet the weight 0: it is left out, and added to the rows that see it.
  template <bool Whole>
  TCNCA_HOST_DEVICE void add_products(uint32 const (&p)[C / M][4], accumulators& acc, T const* values, int steps, bool special) const {
    tile_position const vb = mma_load::b_of_rows(lane());
    auto const at = warp.place(values) + vb.row * columns * bytes;
    if (!Whole && special) add_special(p, acc, values, steps - 1);
    TCNCA_UNROLL
    for (int k = 0; k < C / M; k++) {
      if (!Whole && k >= steps) continue;
      bool const leave_out = !Whole && special && k == steps - 1;
      TCNCA_UNROLL
      for (int l = 0; l < columns; l += line) {
        if (!Whole && l >= columns_) continue;
        TCNCA_UNROLL
        for (int c = 0; c < line; c += M) {
          uint32 b[4];
          warp.load_transposed(b, at + (k * M * columns + l) * bytes + swizzled_rows::offset(vb.row, c + vb.column) * bytes);
          if (leave_out) {
            TCNCA_UNROLL
            for (int r = 0; r < 4; r++) b[r] = finite_only(b[r]);
          }
          warp.template multiply<T>(acc.o[(l + c) / 8], p[k], b[0], b[1]);
          warp.template multiply<T>(acc.o[(l + c) / 8 + 1], p[k], b[2], b[3]);
        }
      }
    }
  }

  /// Whether 16 rows of the values hold an infinity or a NaN.
  TCNCA_HOST_DEVICE bool holds_special(T const* values, int row) const {
    bool found = false;
    for (int i = lane(); i < M * divide_up(columns_, W); i += warp_size) {
      int const r = i % M, c = i / M * W;
      auto const v = load<W>(values + (row + r) * columns + swizzled_rows::offset(r, c));
      TCNCA_UNROLL
      for (int e = 0; e < W; e++) found = found || !is_finite(v.lane(e));
    }
    return warp.any(found);
  }
  /// What the infinite and NaN values among 16 rows, on the diagonal of the warp's queries, add to the rows that see them. Rare: short code.
  TCNCA_HOST_DEVICE void add_special(uint32 const (&p)[C / M][4], accumulators& acc, T const* values, int step) const {
    uint32 a[4] = {0, 0, 0, 0};
    TCNCA_UNROLL
    for (int k = 0; k < C / M; k++) {
      TCNCA_UNROLL
      for (int r = 0; r < 4; r++) a[r] = k == step ? p[k][r] : a[r];
    }
    values += step * M * columns;
    int const t = mma_fragment::c(lane(), 0).column;
    for (int n = 0; n < M; n++) {  // a pair of keys is one register of one of the four lanes that share rows, as many keys to all lanes
      int const other = n / 4, right = n / 2 % 2, key = mma_fragment::a(lane() ^ other, 2 * right).column + n % 2;
      TCNCA_UNROLL
      for (int half = 0; half < 2; half++) {
        float const weight = element_of_pair<T>(warp.exchange(right ? a[2 + half] : a[half], other), n % 2);
        if (key > mma_fragment::c(lane(), 2 * half).row) continue;
        TCNCA_UNROLL
        for (int m = 0; m < tiles; m++) {
          if (8 * m >= columns_) continue;
          auto const v = load<2>(values + key * columns + swizzled_rows::offset(key, 8 * m) + t);
          TCNCA_UNROLL
          for (int c = 0; c < 2; c++) acc.o[m][2 * half + c] += is_finite(v.lane(c)) ? 0.f : weight * v.lane(c);
        }
      }
    }
  }
  /// Of two elements those that are finite; 0 in place of the others.
  TCNCA_HOST_DEVICE static uint32 finite_only(uint32 pair) {
    constexpr uint32 least = same<T, bf16> ? 0x00800080 : 0x04000400;  // carries from an exponent of ones to the sign's place
    return pair & ~((((pair & 0x7fff7fffu) + least) >> 15 & 0x00010001u) * 0xffffu);
  }

  /// The output, normalised, and the statistics.
  TCNCA_HOST_DEVICE void finish(accumulators& acc) const {
    int const t = mma_fragment::c(lane(), 0).column;
    TCNCA_UNROLL
    for (int half = 0; half < 2; half++) {
      int const i = position(half);
      [[maybe_unused]] float total = 0, factor = 1;
      if constexpr (softmax) {
        total = acc.sum[half];
        total += warp.exchange(total, 1);
        total += warp.exchange(total, 2);
        factor = total == 0 ? 0.f : 1 / total;
      }
      if (i < begin_ || i >= end_) continue;
      index const at = chunk_.origin + i - in.position;
      if constexpr (softmax) {
        if (params.lse.present() && column_ == 0 && t == 0)
          *params.lse.at(chunk_.batch, chunk_.head, at) = total == 0 ? -infinity() : acc.most[half] + detail::logarithm(total);
      }
      T* const to = params.o.at(chunk_.batch, chunk_.head, at, 0) + column_ + t;
      TCNCA_UNROLL
      for (int n = 0; n < tiles; n++) {
        if (8 * n >= columns_) continue;
        auto const v = factor == 0 ? broadcast<2>(0.f) : of_row(acc.o[n], half) * broadcast<2>(factor);
        if (in.wide) store<2>(to + 8 * n, v);
        else store_some<2>(to + 8 * n, 1, 2, v);
      }
    }
  }

  template <int N>
  TCNCA_HOST_DEVICE static void clear(float (&c)[N][4]) {
    TCNCA_UNROLL
    for (int n = 0; n < N; n++) c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0;
  }
  /// What a fragment c has of row g, or g + 8.
  TCNCA_HOST_DEVICE static pack<float, 2> of_row(float const (&c)[4], int half) {
    pack<float, 2> x;
    x.set_lane(0, c[2 * half]), x.set_lane(1, c[2 * half + 1]);
    return x;
  }
  TCNCA_HOST_DEVICE static float infinity() { return __builtin_huge_valf(); }
  TCNCA_HOST_DEVICE static bool is_finite(float x) { return x - x == 0; }
  TCNCA_HOST_DEVICE static float power(float x) { return exp2_or_zero(x * 1.44269504f); }  // e^x
  /// The larger; of a NaN and a number, the number.
  TCNCA_HOST_DEVICE static float larger(float a, float b) {
#if defined(__CUDACC__)
    return ::fmaxf(a, b);
#else
    return __builtin_fmaxf(a, b);
#endif
  }
};

}  // namespace tcnca
