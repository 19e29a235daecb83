// What the agents of attention share: a chunk's geometry, its rows in the caller's memory, the weights of scores, dropout.
#pragma once
#include "../block/activation.hpp"
#include "../block/group.hpp"
#include "../block/matrix.hpp"
#include "../block/memory.hpp"
#include "../block/philox.hpp"
#include "../block/transpose.hpp"
#include "../core/tensor.hpp"
#include "shape.hpp"

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
  bool by_count = false;      // instead of scale: one over the number of valid keys
  uint32 drop_threshold = 0;  // a weight whose random word is below is dropped,
  A keep_scale = 1;           // the others are multiplied by this
  uint64 seed = 0, offset = 0;
  bool vectorizable = false;  // rows may be accessed whole packs at a time

  TCNCA_HOST_DEVICE index_t heads() const { return q.extent[1]; }
  TCNCA_HOST_DEVICE int key_dim() const { return int(q.extent[3]); }
  TCNCA_HOST_DEVICE int value_dim() const { return int(v.extent[3]); }
  /// Positions of the longest part of a chunk, the state before included: a chunk may be much longer than the sequence.
  TCNCA_HOST_DEVICE index_t rows() const { return min_of(chunk, position % chunk + q.extent[2]); }
  TCNCA_HOST_DEVICE index_t first_chunk() const { return position / chunk; }
  /// Chunks that the sequence or the state before it has a part in.
  TCNCA_HOST_DEVICE index_t chunks() const { return divide_up(position + q.extent[2], chunk) - first_chunk(); }
};

namespace detail {

/// A chunk of one head of one sequence. Positions count from the chunk's beginning, at absolute position `origin`.
struct attention_chunk {
  index_t batch, head, origin;
  int first, last;  // the queries, and the keys that are not in the state
  int keys;         // keys below this number are valid
};

template <class T>
TCNCA_HOST_DEVICE T infinity() {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  if constexpr (sizeof(T) == 4) {
    return __uint_as_float(0x7f800000u);
  } else {
    return __longlong_as_double(0x7ff0000000000000ll);
  }
#else
  if constexpr (sizeof(T) == 4) {
    return no_contract(bits_as<float>(0x7f800000u));
  } else {
    return no_contract(bits_as<double>(0x7ff0000000000000ull));
  }
#endif
}
template <class T>
TCNCA_HOST_DEVICE bool is_minus_infinity(T x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return x == -infinity<T>();
#else
  using bits = typename bits_of<T>::type;
  return opaque_bits<bits>(x) == opaque_bits<bits>(-infinity<T>());
#endif
}

/// e^x, and 0 where that is no normal number: a score of -infinity has no weight at all.
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> exp_or_zero(pack<T, W> x) {
  constexpr T least = sizeof(T) == 4 ? T(-87) : T(-708);
  return select_positive(broadcast<W>(least) - x, broadcast<W>(T(0)), exp(x));
}

template <class T>
TCNCA_HOST_DEVICE T logarithm(T x) {
#if defined(__CUDACC__)
  return ::log(x);
#else
  return std::log(x);
#endif
}

/// Stores the statistics of a query: the maximum of its scores, and the logarithm of `total`, the sum of exp(score - maximum). They are stored
/// apart because rounding would lose the logarithm in a sum with a large maximum.
template <class A>
TCNCA_HOST_DEVICE void store_lse(tensor_view<A, 4> const& lse, index_t batch, index_t head, index_t t, A most,
                                 A total) {
  *lse.at(batch, head, t, 0) = is_zero(total) ? -infinity<A>() : most;
  *lse.at(batch, head, t, 1) = is_zero(total) ? A(0) : logarithm(total);
}

/// A weight that is not normalised, and its derivative by the score.
template <attention_function F, class T, int W>
TCNCA_HOST_DEVICE value_and_slope<T, W> attention_weight(pack<T, W> score) {
  auto const constant = [](double c) TCNCA_INLINE { return broadcast<W>(T(c)); };
  if constexpr (F == attention_function::laplace) {
    auto const x = (score - constant(0.70710678118654752)) *
                   constant(2.5066282746310005);  // (s - mu) / (sigma sqrt 2), in units of sqrt(2 pi)
    return {fma(constant(0.5), erf(x), constant(0.5)), constant(1.4142135623730951) * exp_or_zero(constant(0) - x * x)};
  } else {
    auto const r = max_zero(score);
    return {r * r, r + r};
  }
}

/// What one group does with its chunk; Policy decides on the packs.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_group {
  using A = accumulate_t<T>;
  using inputs_type = chunked_attention_inputs<T>;
  using group_type = Group;
  static constexpr int W = Policy.width;
  static constexpr bool softmax = Shape.function == attention_function::softmax;
  using value = pack<A, W>;
  using tile = matrix_tile<Policy.tile_rows, Policy.tile_packs, A, W>;
  // Rows of keys and of values in fast memory: as long as the longest and a pack; on a CPU an odd number of cache lines, so that columns meet all sets.
  static constexpr int key_row = round_up(chunked_attention_limits::key_dim, tile::columns) + W;
  static constexpr int value_row = round_up(chunked_attention_limits::value_dim, tile::columns) + W;

  Group group;
  inputs_type const& in;

  /// The chunk of an item: of the heads of a sequence one after another, of a head its chunks.
  TCNCA_HOST_DEVICE attention_chunk chunk_of(index_t item) const {
    index_t const chunks = in.chunks(), number = item % chunks, row = item / chunks, end = in.position + in.q.extent[2];
    attention_chunk c{row / in.heads(), row % in.heads(), (in.first_chunk() + number) * in.chunk, 0, 0, 0};
    c.first = int(max_of(in.position - c.origin, index_t(0)));
    c.last = int(min_of(end - c.origin, in.chunk));
    c.keys = c.last;
    if (in.lengths.present())
      c.keys = int(max_of(c.origin, min_of(c.origin + c.last, *in.lengths.at(c.batch))) - c.origin);
    return c;
  }
  TCNCA_HOST_DEVICE T const* query(attention_chunk const& c, int i) const {
    return in.q.at(c.batch, c.head, c.origin + i - in.position, 0);
  }
  TCNCA_HOST_DEVICE T const* key(attention_chunk const& c, int j) const {
    return j < c.first ? in.keys_in.at(c.batch, c.head, j, 0) : in.k.at(c.batch, c.head, c.origin + j - in.position, 0);
  }
  TCNCA_HOST_DEVICE T const* values(attention_chunk const& c, int j) const {
    return j < c.first ? in.values_in.at(c.batch, c.head, j, 0)
                       : in.v.at(c.batch, c.head, c.origin + j - in.position, 0);
  }
  /// Keys that query i sees: those below this number.
  TCNCA_HOST_DEVICE static int visible(attention_chunk const& c, int i) {
    return Shape.causal ? min_of(i + 1, c.keys) : c.keys;
  }
  /// What the products q . k of query i are multiplied by.
  TCNCA_HOST_DEVICE A scale(attention_chunk const& c, int i) const {
    return in.by_count ? A(1) / A(max_of(1, visible(c, i))) : in.scale;
  }

  /// Elements [column, column + W) of a row; those past its end are zero.
  template <class E>
  TCNCA_HOST_DEVICE value load(E const* row, int column, int dim) const {
    if (in.vectorizable && column + W <= dim) return tcnca::load<W>(row + column);
    return load_some<W>(row + column, 1, max_of(0, dim - column));
  }
  template <class E>
  TCNCA_HOST_DEVICE void store(E* row, int column, int dim, value v) const {
    if (in.vectorizable && column + W <= dim) tcnca::store<W>(row + column, v);
    else store_some<W>(row + column, 1, max_of(0, dim - column), v);
  }

  /// Rows [0, count) of `to`, which stand `row` apart; the rest up to a whole tile is zero. source(r): where row r is, or null.
  /// Each is multiplied by factor(r).
  template <class Source, class Factor>
  TCNCA_HOST_DEVICE void load_rows(A* to, int row, int count, int tile_of, int dim, Source source,
                                   Factor factor) const {
    int const across = divide_up(round_up(dim, tile::columns), W), down = round_up(count, tile_of);
    for_each_pair(group, down, across, [&](int r, int n) TCNCA_INLINE {
      int const c = n * W;
      auto const from = r < count ? source(r) : decltype(source(0))(nullptr);
      tcnca::store<W>(to + r * row + c, from ? load(from, c, dim) * broadcast<W>(factor(r)) : broadcast<W>(A(0)));
    });
  }
  template <class Source>
  TCNCA_HOST_DEVICE void load_rows(A* to, int row, int count, int tile_of, int dim, Source source) const {
    load_rows(to, row, count, tile_of, dim, source, [](int) TCNCA_INLINE { return A(1); });
  }
  /// Columns [first, last) of `count` rows, a panel as wide as a tile after another, each of `height` rows.
  template <class Source>
  TCNCA_HOST_DEVICE void load_panels(A* to, int height, int count, int first, int last, int dim, Source source) const {
    constexpr int packs = tile::columns / W;
    int const across = divide_up(last - first, tile::columns) * packs;
    for_each_pair(group, count, across, [&](int r, int c) TCNCA_INLINE {
      tcnca::store<W>(to + (c / packs * height + r) * tile::columns + c % packs * W,
                      load(source(r), first + c * W, dim));
    });
  }
  /// The transpose: element d of row r at to[d column + r], times factor(r).
  template <class Source, class Factor>
  TCNCA_HOST_DEVICE void load_transposed(A* to, int column, int count, int dim, Source source, Factor factor) const {
    int const across = divide_up(dim, W), down = divide_up(round_up(count, tile::columns), W);
    for_each_pair(group, down, across, [&](int i, int n) TCNCA_INLINE {
      int const r = i * W, c = n * W;
      detail::array<value, W> rows;
      unroll<0, W>([&](auto w) TCNCA_INLINE {
        auto const from = r + w < count ? source(r + w) : decltype(source(0))(nullptr);
        rows[w] = from ? load(from, c, dim) * broadcast<W>(factor(r + w)) : broadcast<W>(A(0));
      });
      detail::transpose(rows);
      unroll<0, W>([&](auto w) TCNCA_INLINE {
        if (c + w < dim) tcnca::store<W>(to + (c + w) * column + r, rows[w]);
      });
    });
  }

  /// The random words of the weights of query i for keys j .. j + 3; j a multiple of 4.
  TCNCA_HOST_DEVICE philox_words random_words(attention_chunk const& c, int i, int j) const {
    uint64 const at = uint64(c.origin + i) + in.offset;
    return philox(in.seed, {{uint32(at), uint32(at >> 32), uint32(j / 4), uint32(c.batch * in.heads() + c.head)}});
  }
  /// What dropout multiplies a weight by that has this word.
  TCNCA_HOST_DEVICE A dropout(uint32 word) const { return word < in.drop_threshold ? A(0) : in.keep_scale; }
  /// The same for the keys j .. j + W - 1; j a multiple of W.
  TCNCA_HOST_DEVICE value dropout_of_keys(attention_chunk const& c, int i, int j) const {
    value keep = broadcast<W>(A(1));
    philox_words words{};
    TCNCA_UNROLL
    for (int w = 0; w < W; w++) {
      if (w % 4 == 0) words = random_words(c, i, (j + w) / 4 * 4);
      keep.set_lane(w, dropout(words.of(W % 4 == 0 ? w : j + w)));
    }
    return keep;
  }
};

}  // namespace detail

}  // namespace tcnca
