// Rows of few queries, their keys in shares, and the results of the shares: what the step agent and the combine agent
// have in common.
#pragma once
#include "../block/online_softmax.hpp"
#include "forward_params.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of the step agent and of the combine agent; the same for all groups.
template <element T>
struct chunked_attention_step_params : chunked_attention_forward_params<T> {
  bool split = false;
  accumulate_t<T>* results = nullptr;  // of the shares, if split: [row, share, query][value_dim, then maximum and sum]
  index_t results_stride = 0;          // packed: elements per sequence
};

namespace detail {
/// Calls of up to so many queries use the step agent.
inline constexpr int chunked_attention_step_limit = 4;

/// A query of a row.
template <class A>
struct attention_step_query {
  A scale, distance_factor;
  index_t head;
  int i, first, last;  // position in the chunk; it sees the keys [first, last)
};

/// The keys or values of a chunk: first those of the state.
template <class T>
struct attention_step_rows {
  T const *state, *recent;
  index_t state_stride, recent_stride;
  int first;
  TCNCA_HOST_DEVICE T const* operator[](int j) const {
    return j < first ? state + j * state_stride : recent + (j - first) * recent_stride;
  }
};

/// The statistics of a row of softmax, to which results of shares are added one after another.
template <class A>
struct attention_step_statistics {
  softmax_row<pack<A, 1>> row{broadcast<1>(-infinity<A>()), broadcast<1>(A(0))};
  A before = A(0), factor = A(1);  // of the output before, and of the output of the latest share

  TCNCA_HOST_DEVICE void add(A maximum, A sum) {
    auto const of_share = broadcast<1>(maximum);
    before = row.rescale(max_or_second(of_share, row.maximum)).lane(0);
    auto const f = row.weight(of_share);
    row.sum = fma(broadcast<1>(sum), f, row.sum), factor = f.lane(0);
  }
};

/// Base of the step agent and of the combine agent.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct attention_step_group : attention_group<Group, T, Shape, Policy> {
  using base = attention_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value;
  using base::group, base::in, base::W, base::softmax;
  using params_type = chunked_attention_step_params<T>;
  using query_type = attention_step_query<A>;
  static constexpr bool parallel = Group::size() > 1;
  static constexpr int limit = sizeof(A) == 8 ? 2 : 4;               // queries of a row
  static constexpr int vector = parallel ? 16 / int(sizeof(T)) : W;  // elements that a thread loads at once
  static constexpr int lanes = parallel ? 8 : 1;                     // threads that multiply a query and a key
  static constexpr int key_sets = parallel ? 4 : 1;                  // thread k of a column adds the keys k, k + 4, ...
  static constexpr int columns = parallel ? Group::size() / key_sets * vector : chunked_attention_limits::value_dim;
  // Keys of a share. 16 bits, key_dim 128, value_dim 1024: 147 KB of input for 4 KB of results of a query. Counted, not
  // measured.
  static constexpr int share = parallel ? 64 : 512;
  static_assert(!parallel || Group::size() % 32 == 0);

  params_type const& params;

  /// Queries of a chunk that share its keys.
  TCNCA_HOST_DEVICE static constexpr index_t queries(params_type const& p) {
    return min_of(p.in.q.extent[2], p.in.chunk) * p.in.group;
  }
  TCNCA_HOST_DEVICE static constexpr index_t rows_per_chunk(params_type const& p) {
    return divide_up(queries(p), index_t(limit));
  }
  TCNCA_HOST_DEVICE static constexpr index_t rows(params_type const& p) {
    return p.in.key_chunks() * rows_per_chunk(p);
  }
  TCNCA_HOST_DEVICE static constexpr int queries_per_row(params_type const& p) {
    return int(min_of(queries(p), index_t(limit)));
  }
  /// Shares that the queries of a row see at most.
  TCNCA_HOST_DEVICE static constexpr index_t shares(params_type const& p) {
    index_t const all = divide_up(p.in.rows(), index_t(share));
    return Shape.window ? min_of(all, divide_up(p.in.window + p.in.q.extent[2], index_t(share)) + 1) : all;
  }
  TCNCA_HOST_DEVICE static constexpr index_t tiles(params_type const& p) {
    return divide_up(index_t(p.in.value_dim()), index_t(columns));
  }
  /// Elements of the result of a query: its output, its statistics, and all of a row.
  TCNCA_HOST_DEVICE static constexpr int result_columns(params_type const& p) { return round_up(p.in.value_dim(), W); }
  TCNCA_HOST_DEVICE static constexpr int result_row(params_type const& p) { return result_columns(p) + W; }
  TCNCA_HOST_DEVICE static constexpr index_t row_results(params_type const& p) {
    return shares(p) * queries_per_row(p) * result_row(p);
  }
  /// The result of a share, counted from the first one that the row sees.
  TCNCA_HOST_DEVICE A* result(index_t row, index_t of_share, int query) const {
    return params.results + ((row * shares(params) + of_share) * queries_per_row(params) + query) * result_row(params);
  }

  struct row_type {
    attention_chunk chunk;
    int begin, count;  // its queries among those of the chunk
  };
  TCNCA_HOST_DEVICE row_type row_of(index_t number) const {
    row_type r{this->chunk_of(this->first_of_group(number / rows_per_chunk(params))), 0, 0};
    r.begin = int(number % rows_per_chunk(params)) * limit;
    r.count = max_of(0, min_of(limit, (r.chunk.last - r.chunk.first) * int(this->heads_per_key()) - r.begin));
    return r;
  }
  /// Keys of a row.
  struct keys_type {
    int first = 0, last = 0;          // that any of its queries sees
    int all_first = 0, all_last = 0;  // that all of them see

    TCNCA_HOST_DEVICE void add(query_type const& q, bool is_first) {
      all_first = is_first ? q.first : max_of(all_first, q.first);
      all_last = is_first ? q.last : min_of(all_last, q.last);
      if (q.first == q.last) return;
      first = first == last ? q.first : min_of(first, q.first), last = max_of(last, q.last);
    }
    TCNCA_HOST_DEVICE int first_share() const { return first / share; }
    TCNCA_HOST_DEVICE int last_share() const { return divide_up(last, share); }
  };
  /// Query n of a row.
  TCNCA_HOST_DEVICE query_type query_of(row_type const& r, int n) const {
    attention_chunk c = r.chunk;
    int const each = c.last - c.first, number = r.begin + n;
    if constexpr (Shape.grouped) { c.head += number / each; }
    if constexpr (Shape.grouped && Shape.head_lengths) { this->apply_lengths(c); }
    int const i = c.first + number % each;
    int const last = !Shape.head_lengths || i < c.queries ? this->visible(c, i) : 0;
    return {this->scale(c, i), this->distance_factor(c), c.head, i, min_of(this->hidden(i), last), last};
  }
  /// The output with that of one more share. Statistics: with those of the share.
  TCNCA_HOST_DEVICE static value combined(value before, value of_share, attention_step_statistics<A> const& s) {
    if constexpr (softmax) {
      return fma(of_share, broadcast<W>(s.factor), before * broadcast<W>(s.before));
    } else {
      return before + of_share;
    }
  }
  TCNCA_HOST_DEVICE T const* query_row(row_type const& r, query_type const& q) const {
    return in.q.at(r.chunk.batch, q.head, this->sequence_index(r.chunk, q.i), 0);
  }
  /// Stores the output of a query, W columns of it.
  TCNCA_HOST_DEVICE void store_output(row_type const& r, query_type const& q, int column, value v, A sum) const {
    T* const to = params.o.at(r.chunk.batch, q.head, this->sequence_index(r.chunk, q.i), 0);
    if constexpr (softmax) { v = normalized(v, inverse_or_zero(sum)); }
    this->store(to, column, in.value_dim(), v);
  }
  TCNCA_HOST_DEVICE void store_statistics(row_type const& r, query_type const& q, A maximum, A sum) const {
    if (softmax && params.lse.present())
      store_lse(params.lse, r.chunk.batch, q.head, this->sequence_index(r.chunk, q.i), maximum, sum);
  }
};

}  // namespace detail

}  // namespace tcnca
