// What the agents of attention share: the inputs of a call, the geometry of a chunk, access to its rows, weights of
// scores.
#pragma once
#include "../block/activation.hpp"
#include "../block/bf16_matrix.hpp"
#include "../block/dropout.hpp"
#include "../block/group.hpp"
#include "../block/memory.hpp"
#include "../block/transpose.hpp"
#include "../core/tensor.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What both directions read; the same for all groups.
template <element T>
struct chunked_attention_inputs {
  using A = accumulate_t<T>;
  tensor_view<T const, 4> q, k, v;
  tensor_view<A const, 2> bias;
  tensor_view<index_t const, 1> lengths;
  tensor_view<T const, 4> keys_in, values_in;
  index_t chunk = 1, position = 0;
  A scale = 1;
  bool scale_by_count = false;  // the scale of a query is 1 / (number of its valid keys) instead
  dropout_params<A> dropout;
  bool vectorizable = false;  // rows are aligned to whole packs
  // Of shapes with these options.
  tensor_view<A const, 2> alibi_slopes;
  tensor_view<index_t const, 2> head_lengths;
  int window = 0;
  index_t group = 1;                          // heads of queries per head of keys
  index_t sequence = 0;                       // packed: its number in the call
  tensor_view<uint64 const, 1> random_state;  // packed

  TCNCA_HOST_DEVICE index_t heads() const { return q.extent[1]; }
  TCNCA_HOST_DEVICE int key_dim() const { return int(q.extent[3]); }
  TCNCA_HOST_DEVICE int value_dim() const { return int(v.extent[3]); }
  /// Positions of the longest part of a chunk that the call reads, keys of the state included. A chunk may be much
  /// longer than the sequence.
  TCNCA_HOST_DEVICE index_t rows() const { return min_of(chunk, position % chunk + q.extent[2]); }
  TCNCA_HOST_DEVICE index_t first_chunk() const { return position / chunk; }
  /// Chunks of one head that contain a position of the sequence or of the state.
  TCNCA_HOST_DEVICE index_t chunks() const { return divide_up(position + q.extent[2], chunk) - first_chunk(); }
  /// Chunks of all heads of all sequences; the same of heads of keys.
  TCNCA_HOST_DEVICE index_t all_chunks() const { return q.extent[0] * heads() * chunks(); }
  TCNCA_HOST_DEVICE index_t key_chunks() const { return all_chunks() / group; }
};

namespace detail {

/// A chunk of one head of one sequence. Positions count from the beginning of the chunk, which is at absolute position
/// `origin`.
struct attention_chunk {
  index_t batch, head, origin;
  int first, last;       // [first, last): the queries, and the keys that are not in the state
  int keys;              // [0, keys): the valid keys
  int queries = 0;       // [first, queries): the queries that attend, if heads have lengths; the others see no key
  index_t key_head = 0;  // if heads are grouped
};

/// Weight functions without normalization: the weight of a score, and its derivative by the score.
template <attention_function F, class T, int W>
TCNCA_HOST_DEVICE value_and_derivative<T, W> attention_weight(pack<T, W> score) {
  auto const constant = [](double c) TCNCA_INLINE { return broadcast<W>(T(c)); };
  if constexpr (F == attention_function::laplace) {
    // (score - mu) / (sigma sqrt 2), with mu = sqrt(1 / 2), sigma = 1 / sqrt(4 pi)
    auto const x = (score - constant(0.70710678118654752)) * constant(2.5066282746310005);
    return {fma(constant(0.5), erf(x), constant(0.5)), constant(1.4142135623730951) * exp_or_zero(constant(0) - x * x)};
  } else {
    auto const r = max_zero(score);
    return {r * r, r + r};
  }
}

/// The register tile of an agent, and the elements of the operands of its products: of the accumulate type, or pairs of
/// bf16.
template <chunked_attention_policy Policy, class A, int Lanes, bool InPairs>
struct attention_tile {
  using operand = A;
  using type = matrix_tile<Policy.tile_rows, Policy.tile_packs, A, Policy.width, Lanes>;
};
template <chunked_attention_policy Policy, class A>
struct attention_tile<Policy, A, 1, true> {
  using operand = bf16_pair;
  using type = bf16_pair_tile<Policy.tile_rows, Policy.tile_packs, Policy.width>;
};

/// Base of the agents: the group, the inputs, and row access in packs of Policy.width.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_group {
  using A = accumulate_t<T>;
  using inputs_type = chunked_attention_inputs<T>;
  using group_type = Group;
  static constexpr int W = Policy.width;
  static constexpr bool softmax = Shape.function == attention_function::softmax;
  using value = pack<A, W>;
  /// Whether many threads share the products, one register tile each; else one thread computes all.
  static constexpr bool shared_products = Group::size() > 1;
  static constexpr bool in_pairs = Policy.bf16_products && same<T, bf16> && !shared_products && has_bf16_pairs;
  using tile_type = attention_tile<Policy, A, shared_products ? Policy.tile_lanes : 1, in_pairs>;
  using operand = typename tile_type::operand;
  using tile = typename tile_type::type;
  static constexpr int terms = in_pairs ? 2 : 1;  // of a product, in an operand
  TCNCA_HOST_DEVICE static constexpr int row_stride(int dim) { return round_up(dim, tile::columns) + W; }
  // Row strides of keys and values in shared memory: compile-time constants for the longest rows. The extra pack makes
  // the stride an odd number of cache lines on a CPU, so that a column is spread over all cache sets.
  static constexpr int key_row = row_stride(chunked_attention_limits::key_dim / terms);
  static constexpr int value_row = row_stride(chunked_attention_limits::value_dim / terms);
  // The same of pairs of neighbouring rows.
  static constexpr int key_pair_row = row_stride(chunked_attention_limits::key_dim);
  static constexpr int value_pair_row = row_stride(chunked_attention_limits::value_dim);

  Group group;
  inputs_type const& in;

  /// Heads of queries that share a head of keys.
  TCNCA_HOST_DEVICE index_t heads_per_key() const { return Shape.grouped ? in.group : 1; }
  /// The first chunk that shares the keys of chunk `number`; order of the latter [batch, key head, chunk].
  TCNCA_HOST_DEVICE index_t first_of_group(index_t number) const {
    return Shape.grouped ? number / in.chunks() * in.group * in.chunks() + number % in.chunks() : number;
  }
  /// The number of the chunk of keys that chunk `number` attends to.
  TCNCA_HOST_DEVICE index_t key_chunk(index_t number) const {
    return Shape.grouped ? number / in.chunks() / in.group * in.chunks() + number % in.chunks() : number;
  }
  /// The chunk with this number; order [batch, head, chunk].
  TCNCA_HOST_DEVICE attention_chunk chunk_of(index_t number) const {
    index_t const chunks = in.chunks(), row = number / chunks, end = in.position + in.q.extent[2];
    attention_chunk c{row / in.heads(), row % in.heads(), (in.first_chunk() + number % chunks) * in.chunk, 0, 0, 0};
    c.first = int(max_of(in.position - c.origin, index_t(0)));
    c.last = int(min_of(end - c.origin, in.chunk));
    if constexpr (Shape.grouped) { c.key_head = c.head / in.group; }
    apply_lengths(c);
    return c;
  }
  /// Sets the keys and queries that the lengths of the chunk's sequence and head leave.
  TCNCA_HOST_DEVICE void apply_lengths(attention_chunk& c) const {
    c.keys = c.last;
    if (in.lengths.present())
      c.keys = int(max_of(c.origin, min_of(c.origin + c.last, *in.lengths.at(c.batch))) - c.origin);
    if constexpr (Shape.head_lengths) {
      c.queries = int(max_of(c.origin, min_of(c.origin + c.last, *in.head_lengths.at(c.batch, c.head))) - c.origin);
      c.keys = min_of(c.keys, c.queries);
    }
  }
  /// The end of the queries that attend.
  TCNCA_HOST_DEVICE static int query_end(attention_chunk const& c) { return Shape.head_lengths ? c.queries : c.last; }
  /// Index of a query, key or value in the sequence, from its position in the chunk.
  TCNCA_HOST_DEVICE index_t sequence_index(attention_chunk const& c, int i) const { return c.origin + i - in.position; }
  TCNCA_HOST_DEVICE T const* query(attention_chunk const& c, int i) const {
    return in.q.at(c.batch, c.head, sequence_index(c, i), 0);
  }
  TCNCA_HOST_DEVICE T const* key(attention_chunk const& c, int j) const {
    index_t const head = Shape.grouped ? c.key_head : c.head;
    return j < c.first ? in.keys_in.at(c.batch, head, j, 0) : in.k.at(c.batch, head, sequence_index(c, j), 0);
  }
  TCNCA_HOST_DEVICE T const* values(attention_chunk const& c, int j) const {
    index_t const head = Shape.grouped ? c.key_head : c.head;
    return j < c.first ? in.values_in.at(c.batch, head, j, 0) : in.v.at(c.batch, head, sequence_index(c, j), 0);
  }
  /// Query i, one that attends, sees the keys [hidden, visible).
  TCNCA_HOST_DEVICE int hidden(int i) const { return Shape.window ? max_of(0, i + 1 - in.window) : 0; }
  TCNCA_HOST_DEVICE static int visible(attention_chunk const& c, int i) {
    return Shape.causal ? min_of(i + 1, c.keys) : c.keys;
  }
  /// Factor of the products q . k of query i.
  TCNCA_HOST_DEVICE A scale(attention_chunk const& c, int i) const {
    return in.scale_by_count ? A(1) / A(max_of(1, visible(c, i) - hidden(i))) : in.scale;
  }
  /// What ALiBi multiplies the distance of query and key by.
  TCNCA_HOST_DEVICE A distance_factor(attention_chunk const& c) const {
    return Shape.alibi ? *in.alibi_slopes.at(c.batch, c.head) : A(0);
  }
  /// Scores with the biases of ALiBi. distance: of query and key, of either sign.
  TCNCA_HOST_DEVICE static value add_alibi(value score, A factor, value distance) {
    return score - broadcast<W>(factor) * max_or_second(distance, broadcast<W>(A(0)) - distance);
  }

  /// Elements [column, column + W) of a row of `dim` elements; zeros past its end.
  template <class E>
  TCNCA_HOST_DEVICE value load(E* row, int column, int dim) const {
    if (in.vectorizable && column + W <= dim) return tcnca::load<W>(row + column);
    return load_some<W>(row + column, 1, max_of(0, dim - column));
  }
  template <class E>
  TCNCA_HOST_DEVICE void store(E* row, int column, int dim, value v) const {
    if (in.vectorizable && column + W <= dim) tcnca::store<W>(row + column, v);
    else store_some<W>(row + column, 1, max_of(0, dim - column), v);
  }

  /// Pairs [column, column + W) of a row of `dim` elements; zeros past its end. row: null for a row of zeros.
  TCNCA_HOST_DEVICE pack<uint32, W> load_pairs(T const* row, int column, int dim) const {
    if (row != nullptr && in.vectorizable && 2 * (column + W) <= dim)
      return tcnca::load<W>(reinterpret_cast<bf16_pair const*>(row + 2 * column));
    pack<uint32, W> pairs = broadcast<W>(uint32(0));
    if (row != nullptr)
      for (int w = 0; w < W && 2 * (column + w) < dim; w++) {
        int const c = 2 * (column + w);
        pairs.set_lane(w, row[c].bits | (c + 1 < dim ? uint32(row[c + 1].bits) << 16 : 0u));
      }
    return pairs;
  }

  /// Replaces the rows [begin, end) of a pack, `stride` elements apart, by pairs of neighbouring rows: pair r is in row
  /// r. A half without a row is 0.
  TCNCA_HOST_DEVICE void make_row_pairs(A* rows, int stride, int begin, int end) const {
    auto const row = [&](int r) TCNCA_INLINE {
      return begin <= r && r < end ? tcnca::load<W>(const_cast<A const*>(rows + r * stride)) : broadcast<W>(A(0));
    };
    for (int r = begin / 2; r < divide_up(end, 2); r++)
      tcnca::store<W>(reinterpret_cast<bf16_pair*>(rows + r * stride), make_pairs(row(2 * r), row(2 * r + 1)));
  }

  // The following copy a block from the caller's memory into shared memory. All threads of the group call them; a
  // barrier must follow. source(r): the first element of row r, or null for a row of zeros. factor(r): what row r is
  // multiplied by.

  /// Row-major, in pairs of neighbouring rows: a row of the block holds two, the second one zeros after an odd `count`.
  template <class Source>
  TCNCA_HOST_DEVICE void load_row_pairs(bf16_pair* to, int stride, int count, int dim, Source source) const {
    int const packs = divide_up(round_up(dim, tile::columns), W);
    for_each_pair(group, divide_up(count, 2), packs, [&](int r, int n) TCNCA_INLINE {
      auto const row = [&](int i) TCNCA_INLINE {
        auto const from = i < count ? source(i) : decltype(source(0))(nullptr);
        return from ? load(from, n * W, dim) : broadcast<W>(A(0));
      };
      tcnca::store<W>(to + r * stride + n * W, make_exact_pairs(row(2 * r), row(2 * r + 1)));
    });
  }
  /// Row-major, in pairs of neighbouring columns.
  template <class Source>
  TCNCA_HOST_DEVICE void load_rows(bf16_pair* to, int stride, int count, int multiple, int dim, Source source) const {
    int const packs = divide_up(divide_up(dim, 2), W), rows = round_up(count, multiple);
    for_each_pair(group, rows, packs, [&](int r, int n) TCNCA_INLINE {
      auto const from = r < count ? source(r) : decltype(source(0))(nullptr);
      tcnca::store<W>(to + r * stride + n * W, load_pairs(from, n * W, dim));
    });
  }
  /// Row-major: rows [0, count), `stride` elements apart; zeros up to a multiple of `multiple` rows and to whole tile
  /// columns.
  template <class Source, class Factor>
  TCNCA_HOST_DEVICE void load_rows(A* to, int stride, int count, int multiple, int dim, Source source,
                                   Factor factor) const {
    int const packs = divide_up(round_up(dim, tile::columns), W), rows = round_up(count, multiple);
    for_each_pair(group, rows, packs, [&](int r, int n) TCNCA_INLINE {
      int const c = n * W;
      auto const from = r < count ? source(r) : decltype(source(0))(nullptr);
      tcnca::store<W>(to + r * stride + c, from ? load(from, c, dim) * broadcast<W>(factor(r)) : broadcast<W>(A(0)));
    });
  }
  template <class Source>
  TCNCA_HOST_DEVICE void load_rows(A* to, int stride, int count, int multiple, int dim, Source source) const {
    load_rows(to, stride, count, multiple, dim, source, [](int) TCNCA_INLINE { return A(1); });
  }
  /// Panels: columns [first, last) of `count` rows. Each panel has tile::columns columns and `height` rows; panels
  /// follow each other.
  template <class Source>
  TCNCA_HOST_DEVICE void load_panels(A* to, int height, int count, int first, int last, int dim, Source source) const {
    constexpr int packs = tile::columns / W;
    int const all_packs = divide_up(last - first, tile::columns) * packs;
    for_each_pair(group, count, all_packs, [&](int r, int c) TCNCA_INLINE {
      tcnca::store<W>(to + (c / packs * height + r) * tile::columns + c % packs * W,
                      load(source(r), first + c * W, dim));
    });
  }
  /// The same of pairs of neighbouring rows; zeros in place of the row after an odd `count`.
  template <class Source>
  TCNCA_HOST_DEVICE void load_panels(bf16_pair* to, int height, int count, int first, int last, int dim,
                                     Source source) const {
    constexpr int packs = tile::columns / W;
    int const all_packs = divide_up(last - first, tile::columns) * packs;
    for_each_pair(group, divide_up(count, 2), all_packs, [&](int r, int c) TCNCA_INLINE {
      value const low = load(source(2 * r), first + c * W, dim),
                  high = 2 * r + 1 < count ? load(source(2 * r + 1), first + c * W, dim) : broadcast<W>(A(0));
      tcnca::store<W>(to + (c / packs * height + r) * tile::columns + c % packs * W, make_exact_pairs(low, high));
    });
  }
  /// Column-major: element d of row r at to[d stride + r].
  template <class Source, class Factor>
  TCNCA_HOST_DEVICE void load_transposed(A* to, int stride, int count, int dim, Source source, Factor factor) const {
    int const packs = divide_up(dim, W), row_packs = divide_up(round_up(count, tile::columns), W);
    for_each_pair(group, row_packs, packs, [&](int i, int n) TCNCA_INLINE {
      int const r = i * W, c = n * W;
      detail::array<value, W> rows;
      unroll<0, W>([&](auto w) TCNCA_INLINE {
        auto const from = r + w < count ? source(r + w) : decltype(source(0))(nullptr);
        rows[w] = from ? load(from, c, dim) * broadcast<W>(factor(r + w)) : broadcast<W>(A(0));
      });
      detail::transpose(rows);
      unroll<0, W>([&](auto w) TCNCA_INLINE {
        if (c + w < dim) tcnca::store<W>(to + (c + w) * stride + r, rows[w]);
      });
    });
  }

  /// Column-major, in pairs of neighbouring columns: the pair of columns 2 d and 2 d + 1 of row r at to[d stride + r].
  template <class Source>
  TCNCA_HOST_DEVICE void load_transposed(bf16_pair* to, int stride, int count, int dim, Source source) const {
    int const pairs = divide_up(dim, 2), packs = divide_up(pairs, W),
              row_packs = divide_up(round_up(count, tile::columns), W);
    for_each_pair(group, row_packs, packs, [&](int i, int n) TCNCA_INLINE {
      int const r = i * W, c = n * W;
      detail::array<pack<uint32, W>, W> rows;
      unroll<0, W>([&](auto w) TCNCA_INLINE {
        rows[w] = load_pairs(r + w < count ? source(r + w) : decltype(source(0))(nullptr), c, dim);
      });
      detail::transpose(rows);
      unroll<0, W>([&](auto w) TCNCA_INLINE {
        if (c + w < pairs) tcnca::store<W>(to + (c + w) * stride + r, rows[w]);
      });
    });
  }

  /// Column-major, multiplied by factor(r); in pairs as they are, with the factors at `factors`.
  template <class Source, class Factor>
  TCNCA_HOST_DEVICE void load_transposed(operand* to, int stride, int count, int dim, Source source, Factor factor,
                                         [[maybe_unused]] A* factors) const {
    if constexpr (in_pairs) {
      load_transposed(to, stride, count, dim, source);
      load_factors(factors, round_up(count, tile::columns), count, factor);
    } else {
      load_transposed(to, stride, count, dim, source, factor);
    }
  }
  template <class Factor>
  TCNCA_HOST_DEVICE void load_factors(A* to, int size, int count, Factor factor) const {
    for (int r = group.rank(); r < size; r += group.size()) to[r] = r < count ? factor(r) : A(0);
  }

  /// Dropout of the weights: positions are those of queries, columns are keys, and each head of each sequence has its
  /// own mask.
  TCNCA_HOST_DEVICE index_t dropout_sequence(attention_chunk const& c) const {
    return (Shape.packed ? in.sequence : c.batch) * in.heads() + c.head;
  }
  /// The random words of query i and the keys j .. j + 3; j a multiple of 4.
  TCNCA_HOST_DEVICE philox_words dropout_words(attention_chunk const& c, int i, int j) const {
    return in.dropout.words(dropout_sequence(c), c.origin + i, j);
  }
  /// The factors of query i and the keys j .. j + W - 1; j a multiple of W.
  TCNCA_HOST_DEVICE value dropout_factors(attention_chunk const& c, int i, int j) const {
    return in.dropout.template factors<W>(dropout_sequence(c), c.origin + i, j);
  }
  /// Dropout of the weights of the queries i .. i + W - 1 and the keys [from + begin, from + count), whose rows are
  /// `stride` elements apart. A draw covers four keys of one query.
  TCNCA_HOST_DEVICE void apply_dropout(attention_chunk const& c, A* weight, int stride, int i, int from, int begin,
                                       int count) const {
    for (int j = begin / 4 * 4; j < count; j += 4) {
      array<A, W> factor[4];
      TCNCA_UNROLL
      for (int w = 0; w < W; w++) {
        auto const words = this->dropout_words(c, i + w, from + j);
        TCNCA_UNROLL
        for (int n = 0; n < 4; n++) factor[n][w] = in.dropout.factor(words.word[n]);
      }
      unroll<0, 4>([&](auto n) TCNCA_INLINE {
        A* const at = weight + (j + n) * stride;
        if (begin <= j + n && j + n < count) {
          value p = tcnca::load<W>(const_cast<A const*>(at));
          TCNCA_UNROLL
          for (int w = 0; w < W; w++) p.set_lane(w, p.lane(w) * factor[n][w]);
          tcnca::store<W>(at, p);
        }
      });
    }
  }
};

}  // namespace detail

}  // namespace tcnca
