// Causal attention of a few queries, as in decoding: the cost is that of reading the cache of keys and values.
//
//   row       up to `limit` queries of a chunk, of all heads that share its keys: they read keys and values together
//   share     a fixed number of keys, from a multiple of it on. The queries of a row have a result for each share,
//             maximum, sum and output; these are combined in the order of the shares.
//   item      all shares of a row; or, where there are fewer rows than workers (`split`), one share and a tile of the
//             value dimension. Then the results of the shares are in the workspace and chunked_attention_combine_agent
//             combines them. Both have the same bits.
//   phases    of a share: products of queries and keys, `lanes` threads per key; scores; weights; for each value tile
//             the sums over the keys, `key_sets` threads per column, which are added in their order
//   barriers  one after each phase, two for a value tile
#pragma once
#include "../block/agent.hpp"
#include "step_rows.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Policy: that of the forward pass.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_step_agent : detail::attention_step_group<Group, T, Shape, Policy> {
  using base = detail::attention_step_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value, typename base::params_type, typename base::query_type,
      typename base::row_type;
  using base::group, base::in, base::params, base::W, base::softmax, base::parallel, base::limit, base::vector,
      base::lanes, base::key_sets, base::columns, base::share;
  using loaded = pack<A, vector>;
  using statistics_type = detail::attention_step_statistics<A>;

  static constexpr int blocks_per_multiprocessor = 2;  // one loads while the other one computes weights

  A* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_step_agent(Group g, params_type const& p, A* shared, A*)
      : base{{g, p.in}, p}, shared_memory(shared) {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return base::rows(p) * (p.split ? base::shares(p) * base::tiles(p) : 1);
  }
  static constexpr group_memory memory(params_type const& p) {
    return {.shared_memory_bytes =
                size_t(base::queries_per_row(p) == 1 ? elements<1>(p) : elements<limit>(p)) * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const tiles = params.split ? base::tiles(params) : 1, shares = params.split ? base::shares(params) : 1;
    index_t const number = item / tiles / shares;
    auto const keys = find_queries(number);
    range_type range{keys.first_share(), keys.last_share(), 0, int(base::tiles(params))};
    if (params.split) {
      range.first += int(item / tiles % shares), range.last = min_of(range.last, range.first + 1);
      range.first_tile = int(item % tiles), range.last_tile = range.first_tile + 1;
    }
    int const count = parallel ? base::queries_per_row(params) : row().count;
    if (count == 1) {
      process<1>(keys, number, range);
    } else if (parallel || count > 2) {
      process<limit>(keys, number, range);
    } else if constexpr (!parallel) {
      if (count == 2) process<2>(keys, number, range);
    }
    group.sync();  // the next item reuses the memory
  }

 private:
  struct range_type {
    int first, last, first_tile, last_tile;  // shares and value tiles
  };
  static constexpr int query_elements = chunked_attention_limits::key_dim;
  /// Offsets in shared memory for N queries; the output of unsplit rows is at the end.
  template <int N>
  struct layout {
    static constexpr int line = 64 / int(sizeof(A));
    static constexpr int after(int at, int n) { return at + round_up(n, line); }
    template <class X>
    static constexpr int elements_of = int(sizeof(X) / sizeof(A)) + 1;

    static constexpr int product_row = parallel ? share + W : share;  // of a lane; lanes are in different banks
    static constexpr int row = 0, queries = after(row, elements_of<row_type>),
                         statistics = after(queries, limit*elements_of<query_type>),
                         maxima = after(statistics, limit*elements_of<statistics_type>), sums = after(maxima, limit),
                         query = after(sums, limit*share / W), product = after(query, N*query_elements);
    // Of one thread, these share their memory.
    static constexpr int score = parallel ? after(product, N*lanes*product_row) : product,
                         weight = parallel ? after(score, N*share) : product, part = after(weight, N*share),
                         output = after(part, parallel ? N*key_sets*columns : 0);
  };

  template <int N>
  static constexpr int elements(params_type const& p) {
    return layout<N>::output + N * base::result_columns(p);
  }
  TCNCA_HOST_DEVICE query_type* queries() const {
    return reinterpret_cast<query_type*>(shared_memory + layout<1>::queries);
  }
  TCNCA_HOST_DEVICE statistics_type* statistics() const {
    return reinterpret_cast<statistics_type*>(shared_memory + layout<1>::statistics);
  }
  TCNCA_HOST_DEVICE value load_shared(int offset) const {
    return tcnca::load<W>(const_cast<A const*>(shared_memory + offset));
  }

  TCNCA_HOST_DEVICE row_type& row() const { return *reinterpret_cast<row_type*>(shared_memory + layout<1>::row); }

  /// Sets the row, its queries and their statistics in shared memory.
  TCNCA_HOST_DEVICE typename base::keys_type find_queries(index_t number) const {
    if (group.rank() == 0) row() = this->row_of(number);
    group.sync();
    for (int q = group.rank(); q < limit; q += group.size()) {
      queries()[q] = q < row().count ? this->query_of(row(), q) : query_type{};
      statistics()[q] = statistics_type{};
    }
    group.sync();
    typename base::keys_type keys;
    for (int q = 0; q < row().count; q++) keys.add(queries()[q], q == 0);
    return keys;
  }

  template <int N>
  TCNCA_HOST_DEVICE void process(typename base::keys_type const& keys, index_t number, range_type const& range) const {
    load_queries<N>();
    for (int s = range.first; s < range.last; s++) {
      int const origin = s * share, first = max_of(keys.first - origin, 0), last = min_of(keys.last - origin, share);
      bool const all_see = keys.all_first <= origin + first && origin + last <= keys.all_last;
      A* const results = params.split ? base::result(number, s - keys.first_share(), 0) : nullptr;
      if (in.vectorizable) compute_products<N, true>(origin, first, last);
      else compute_products<N, false>(origin, first, last);
      group.sync();
      compute_scores<N>(origin, first, last);
      group.sync();
      if constexpr (softmax) {
        compute_weights<N>(origin, first, last);
        group.sync();
        for (int q = group.rank(); q < row().count; q += group.size())
          add_statistics<N>(q, first, last, range.first_tile == 0 ? results : nullptr);
      }
      for (int t = range.first_tile; t < range.last_tile; t++)
        accumulate<N>(origin, first, last, all_see, t, results, s == keys.first_share());
    }
    if (!params.split) store_row<N>(keys.first < keys.last);
  }
  TCNCA_HOST_DEVICE auto rows_of(tensor_view<T const, 4> const& state, tensor_view<T const, 4> const& recent) const {
    auto const& c = row().chunk;
    index_t const head = Shape.grouped ? c.key_head : c.head;
    return detail::attention_step_rows<T>{c.first > 0 ? state.at(c.batch, head, 0, 0) : nullptr,
                                          recent.at(c.batch, head, this->sequence_index(c, c.first), 0),
                                          state.stride[2], recent.stride[2], c.first};
  }
  /// The elements of the queries times their scale; zeros for queries that do not exist.
  template <int N>
  TCNCA_HOST_DEVICE void load_queries() const {
    for_each_pair(group, N, round_up(in.key_dim(), vector) / W, [&](int q, int n) TCNCA_INLINE {
      value x = broadcast<W>(A(0));
      if (q < row().count) {
        query_type const& query = queries()[q];
        x = this->load(this->query_row(row(), query), n * W, in.key_dim()) * broadcast<W>(query.scale);
      }
      tcnca::store<W>(shared_memory + layout<N>::query + q * query_elements + n * W, x);
    });
    group.sync();
  }
  template <bool Aligned>
  TCNCA_HOST_DEVICE loaded load_vector(T const* row, int column, int dim) const {
    if constexpr (!parallel) {
      return this->load(row, column, dim);
    } else if constexpr (Aligned) {
      return tcnca::load<vector>(row + column);
    } else {
      return load_some<vector>(row + column, 1, vector);
    }
  }

  // Below, keys count from `origin`, the first of their share; those of the row are [first, last).

  /// The sums of the products of each lane. Those of other keys are of no meaning.
  template <int N, bool Aligned>
  TCNCA_HOST_DEVICE void compute_products(int origin, int first, int last) const {
    auto const keys = rows_of(in.keys_in, in.k);
    constexpr int slots = Group::size() / lanes, together = N > 1 || !Aligned ? 1 : parallel ? 2 : 4;
    int const lane = group.rank() % lanes, begin = parallel ? 0 : first, end = parallel ? share : last;
    for (int k = begin + group.rank() / lanes; k < end; k += slots * together) {
      detail::array<T const*, together> row;
      detail::array<detail::array<loaded, N>, together> sum;
      unroll<0, together>([&](auto m) TCNCA_INLINE {
        row[m] = keys[origin + max_of(first, min_of(k + m * slots, last - 1))];
        unroll<0, N>([&](auto q) TCNCA_INLINE { sum[m][q] = broadcast<vector>(A(0)); });
      });
      for (int d = lane * vector; d < in.key_dim(); d += lanes * vector) {
        detail::array<loaded, together> x;
        unroll<0, together>([&](auto m) TCNCA_INLINE { x[m] = load_vector<Aligned>(row[m], d, in.key_dim()); });
        unroll<0, N>([&](auto q) TCNCA_INLINE {
          loaded y;
          unroll<0, vector / W>([&](auto n) TCNCA_INLINE {
            set_part(y, n * W, load_shared(layout<N>::query + q * query_elements + d + n * W));
          });
          unroll<0, together>([&](auto m) TCNCA_INLINE { sum[m][q] = fma(x[m], y, sum[m][q]); });
        });
      }
      unroll<0, together>([&](auto m) TCNCA_INLINE {
        if (k + m * slots < end)
          unroll<0, N>([&](auto q) TCNCA_INLINE {
            shared_memory[layout<N>::product + (q * lanes + lane) * layout<N>::product_row + k + m * slots] =
                sum_lanes(sum[m][q]);
          });
      });
    }
  }

  /// f(query, pack of the thread's keys, distance to its next pack) for each query; the threads are divided among them.
  template <int N, class F>
  TCNCA_HOST_DEVICE void for_each_query(F f) const {
    constexpr int threads = Group::size() > N ? Group::size() / N : 1;
    for (int q = group.rank() / threads; q < N; q += max_of(1, Group::size() / threads))
      f(q, group.rank() % threads, threads);
  }
  /// Packs of keys that contain [first, last).
  TCNCA_HOST_DEVICE static int first_pack(int first) { return first / W; }
  TCNCA_HOST_DEVICE static int last_pack(int last) { return divide_up(last, W); }

  /// The scores (softmax) or the weights; -infinity or 0 for keys that the query does not see.
  template <int N>
  TCNCA_HOST_DEVICE void compute_scores(int origin, int first, int last) const {
    for_each_query<N>([&](int q, int begin, int step) TCNCA_INLINE {
      query_type const query = queries()[q];
      for (int n = first_pack(first) + begin; n < last_pack(last); n += step) {
        value s = load_shared(layout<N>::product + q * lanes * layout<N>::product_row + n * W);
        for (int l = 1; l < lanes; l++)
          s = s + load_shared(layout<N>::product + (q * lanes + l) * layout<N>::product_row + n * W);
        int const j = origin + n * W;
        if (Shape.bias || Shape.alibi || j < query.first || j + W > query.last) {
          TCNCA_UNROLL
          for (int w = 0; w < W; w++) {
            A x = -detail::infinity<A>();
            if (query.first <= j + w && j + w < query.last) {
              x = s.lane(w);
              if constexpr (Shape.bias) { x += *in.bias.at(query.head, in.chunk - 1 + j + w - query.i); }
              if constexpr (Shape.alibi) { x -= query.distance_factor * A(query.i - j - w); }
            }
            s.set_lane(w, x);
          }
        }
        if constexpr (softmax) {
          tcnca::store<W>(shared_memory + layout<N>::score + q * share + n * W, s);
        } else {
          store_weights<N>(query, q, n, j, detail::attention_weight<Shape.function>(s).value);
        }
      }
    });
  }
  template <int N>
  TCNCA_HOST_DEVICE void store_weights(query_type const& query, int q, int n, int j, value weights) const {
    if constexpr (Shape.dropout) {
      detail::attention_chunk c = row().chunk;
      c.head = query.head;
      weights = weights * this->dropout_factors(c, query.i, j);
    }
    tcnca::store<W>(shared_memory + layout<N>::weight + q * share + n * W, weights);
  }
  /// The weights of softmax, the maximum of each query, and the sums of each thread.
  template <int N>
  TCNCA_HOST_DEVICE void compute_weights(int origin, int first, int last) const {
    for_each_query<N>([&](int q, int begin, int step) TCNCA_INLINE {
      int const score = layout<N>::score + q * share, end = last_pack(last);
      if (begin >= end - first_pack(first)) return;
      query_type const query = queries()[q];
      value maxima = broadcast<W>(-detail::infinity<A>()), sums = broadcast<W>(A(0));
      for (int n = first_pack(first); n < end; n++) maxima = max_or_second(load_shared(score + n * W), maxima);
      A maximum = maxima.lane(0);
      TCNCA_UNROLL
      for (int w = 1; w < W; w++) maximum = detail::if_greater(maxima.lane(w), maximum, maxima.lane(w), maximum);
      value const subtrahend = broadcast<W>(detail::finite_maximum(maximum));
      for (int n = first_pack(first) + begin; n < end; n += step) {
        value const p = detail::exp_or_zero(load_shared(score + n * W) - subtrahend);
        sums = sums + p;
        store_weights<N>(query, q, n, origin + n * W, p);
      }
      shared_memory[layout<N>::sums + q * (share / W) + begin] = sum_lanes(sums);
      if (begin == 0) shared_memory[layout<N>::maxima + q] = maximum;
    });
  }
  /// Adds the statistics of a share to those of a query.
  template <int N>
  TCNCA_HOST_DEVICE void add_statistics(int q, int first, int last, A* to) const {
    constexpr int threads = Group::size() > N ? Group::size() / N : 1;
    A sum = 0;
    for (int n = 0; n < min_of(threads, last_pack(last) - first_pack(first)); n++)
      sum += shared_memory[layout<N>::sums + q * (share / W) + n];
    A const maximum = shared_memory[layout<N>::maxima + q];
    if (to) to += q * base::result_row(params) + base::result_columns(params), to[0] = maximum, to[1] = sum;
    else statistics()[q].add(maximum, sum);
  }

  /// The products of the weights with a tile of the values. results: where they belong; null: to the output.
  template <int N>
  TCNCA_HOST_DEVICE void accumulate(int origin, int first, int last, bool all_see, int value_tile, A* results,
                                    bool is_first) const {
    constexpr int threads = Group::size() / key_sets, packs = parallel ? 1 : 8 / N;
    int const begin = value_tile * columns, end = min_of(begin + columns, in.value_dim()),
              key_set = group.rank() / threads;
    for (int c = begin + group.rank() % threads * packs * vector; c < end; c += threads * packs * vector) {
      sums_type<N, packs> sum;
      unroll<0, packs>([&](auto n) TCNCA_INLINE {
        unroll<0, N>([&](auto q) TCNCA_INLINE { sum[n][q] = broadcast<vector>(A(0)); });
      });
      if (in.vectorizable) add_values<N, packs, true>(sum, origin, first, last, all_see, key_set, c, end);
      else add_values<N, packs, false>(sum, origin, first, last, all_see, key_set, c, end);
      unroll<0, packs>([&](auto n) TCNCA_INLINE {
        unroll<0, N>([&](auto q) TCNCA_INLINE {
          if constexpr (parallel) {
            A* const to = shared_memory + layout<N>::part + (q * key_sets + key_set) * columns + c - begin;
            unroll<0, vector / W>([&](auto w)
                                      TCNCA_INLINE { tcnca::store<W>(to + w * W, part_of<W>(sum[n][q], w * W)); });
          } else {
            if (q < row().count && c + n * W < end) add_part<N>(q, c + n * W, sum[n][q], results, is_first);
          }
        });
      });
    }
    if constexpr (parallel) {
      group.sync();
      for_each_pair(group, row().count, (end - begin) / W, [&](int q, int n) TCNCA_INLINE {
        int const from = layout<N>::part + q * key_sets * columns + n * W;
        value part = load_shared(from);
        for (int k = 1; k < key_sets; k++) part = part + load_shared(from + k * columns);
        add_part<N>(q, begin + n * W, part, results, is_first);
      });
      group.sync();
    }
  }
  template <int N, int Packs>
  using sums_type = detail::array<detail::array<loaded, N>, Packs>;
  /// Adds the columns [column, column + Packs * vector) of the values of a set of keys, times their weights: first the
  /// keys in the state.
  template <int N, int Packs, bool Aligned>
  TCNCA_HOST_DEVICE void add_values(sums_type<N, Packs>& sum, int origin, int first, int last, bool all_see,
                                    int key_set, int column, int end) const {
    constexpr int together = !parallel || !Aligned ? 1 : N > 1 ? 4 : 8;
    auto const values = rows_of(in.values_in, in.v);
    for (int from = first; from < last;) {
      bool const in_state = origin + from < values.first;
      int const to = in_state ? min_of(last, values.first - origin) : last;
      index_t const stride = in_state ? values.state_stride : values.recent_stride;
      int k = from + ((key_set - from) & (key_sets - 1));
      T const* row = values[origin + min_of(k, to - 1)];
      auto const add = [&](auto count) TCNCA_INLINE {
        add_keys<N, Packs, Aligned, count>(sum, row, stride, origin, k, all_see, column, end);
        k += count * key_sets, row += count * key_sets * stride;
      };
      while (together > 1 && k + (together - 1) * key_sets < to) add(constant<together>{});
      while (k < to) add(constant<1>{});
      from = to;
    }
  }
  /// The same for Count keys of the set from `key` on, all loads before the sums. Values that a query does not see are
  /// not added, so that they may be NaN.
  template <int N, int Packs, bool Aligned, int Count>
  TCNCA_HOST_DEVICE void add_keys(sums_type<N, Packs>& sum, T const* row, index_t stride, int origin, int key,
                                  bool all_see, int column, int end) const {
    detail::array<detail::array<loaded, Packs>, Count> x;
    unroll<0, Count>([&](auto m) TCNCA_INLINE {
      unroll<0, Packs>([&](auto n) TCNCA_INLINE {
        int const c = column + n * vector < end ? column + n * vector : column;
        x[m][n] = load_vector<Aligned>(row + m * key_sets * stride, c, in.value_dim());
      });
    });
    unroll<0, Count>([&](auto m) TCNCA_INLINE {
      int const k = key + m * key_sets;
      unroll<0, N>([&](auto q) TCNCA_INLINE {
        if (N > 1 && !all_see && (origin + k < queries()[q].first || origin + k >= queries()[q].last)) return;
        auto const weight = broadcast<vector>(shared_memory[layout<N>::weight + q * share + k]);
        unroll<0, Packs>([&](auto n) TCNCA_INLINE { sum[n][q] = fma(x[m][n], weight, sum[n][q]); });
      });
    });
  }
  /// Adds W columns of the output of a share to that of query q, or stores them as the result of the share.
  template <int N>
  TCNCA_HOST_DEVICE void add_part(int q, int column, value part, A* results, bool is_first) const {
    A* to = shared_memory + layout<N>::output + q * base::result_columns(params) + column;
    if (results) {
      to = results + q * base::result_row(params) + column;
    } else {
      value const before = is_first ? broadcast<W>(A(0)) : tcnca::load<W>(const_cast<A const*>(to));
      part = base::combined(before, part, statistics()[q]);
    }
    tcnca::store<W>(to, part);
  }
  /// The output of the row's queries from that of their shares.
  template <int N>
  TCNCA_HOST_DEVICE void store_row(bool any_keys) const {
    for_each_pair(group, row().count, base::result_columns(params) / W, [&](int q, int n) TCNCA_INLINE {
      value v = broadcast<W>(A(0));
      if (any_keys) v = load_shared(layout<N>::output + q * base::result_columns(params) + n * W);
      this->store_output(row(), queries()[q], n * W, v, statistics()[q].row.sum.lane(0));
    });
    for (int q = group.rank(); q < row().count; q += group.size())
      this->store_statistics(row(), queries()[q], statistics()[q].row.maximum.lane(0), statistics()[q].row.sum.lane(0));
  }
};

}  // namespace tcnca
