// Causal attention of a few queries, as in decoding: the cost is that of reading the cache of keys and values.
//
//   item      a query and a tile of the value dimension
//   phases    scores: each thread a pack of keys; softmax: maximum and sum by partial results of the threads, added in
//             their order; output: each thread packs of columns, over all keys
//   memory    shared: a score per key of the chunk, and two numbers per thread
//   barriers  one after each phase, two inside softmax
//
// The state after the call is written by an agent of its own in a later launch, when every item has read the state
// before.
#pragma once
#include "../block/agent.hpp"
#include "../block/online_softmax.hpp"
#include "forward.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
/// Calls of up to so many queries use the step agent.
inline constexpr index_t chunked_attention_step_limit = 4;
}  // namespace detail

/// Policy: that of the forward pass.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_step_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value;
  using base::group, base::in, base::W, base::softmax;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int columns = 512;  // of the value tile

  params_type const& params;
  A* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_step_agent(Group g, params_type const& p, A* shared, A*)
      : base{g, p.in}, params(p), shared_memory(shared) {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.q.extent[2] * divide_up(p.in.value_dim(), columns);
  }
  static group_memory memory(params_type const& p) {
    return {.shared_memory_bytes = (size_t(round_up(p.in.chunk, index_t(W))) + 2 * size_t(Group::size())) * sizeof(A)};
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const tiles = divide_up(in.value_dim(), columns), length = in.q.extent[2];
    int const column = int(item % tiles) * columns;
    index_t const t = item / tiles % length, row = item / tiles / length;
    auto const chunk = this->chunk_of(row * in.chunks() + (in.position + t) / in.chunk - in.first_chunk());
    int const i = int(in.position + t - chunk.origin);
    int const count = !Shape.head_lengths || i < chunk.queries ? this->visible(chunk, i) : 0;
    int const first = this->hidden(i) / W * W;  // the first whole pack of keys that is read
    compute_scores(chunk, i, first, count);
    A factor = A(1);
    if constexpr (softmax) {
      auto const statistics = normalize(first, count);
      factor = detail::inverse_or_zero(statistics.sum);
      if (params.lse.present() && column == 0 && group.rank() == 0)
        detail::store_lse(params.lse, chunk.batch, chunk.head, t, statistics.maximum, statistics.sum);
    }
    store_output(chunk, t, count, column, factor);
    group.sync();  // the next item reuses the memory
  }

 private:
  /// The scores of query i (softmax), or the weights; padded to whole packs with -infinity.
  TCNCA_HOST_DEVICE void compute_scores(detail::attention_chunk const& chunk, int i, int begin, int count) const {
    T const* const query = this->query(chunk, i);
    A const scale = this->scale(chunk, i);
    [[maybe_unused]] A const distance_factor = this->distance_factor(chunk);
    for (int first = begin + group.rank() * W; first < count; first += group.size() * W) {
      value scores = broadcast<W>(-detail::infinity<A>());
      TCNCA_UNROLL
      for (int w = 0; w < W; w++) {
        int const j = first + w;
        if (j >= count) break;
        if (Shape.window && j < this->hidden(i)) continue;
        T const* const key = this->key(chunk, j);
        value sum = broadcast<W>(A(0));
        for (int d = 0; d < in.key_dim(); d += W)
          sum = fma(this->load(query, d, in.key_dim()) * broadcast<W>(scale), this->load(key, d, in.key_dim()), sum);
        A s = sum_lanes(sum);
        if constexpr (Shape.bias) { s += *in.bias.at(chunk.head, in.chunk - 1 + j - i); }
        if constexpr (Shape.alibi) { s -= distance_factor * A(j < i ? i - j : j - i); }
        scores.set_lane(w, s);
      }
      if constexpr (!softmax) { scores = detail::attention_weight<Shape.function>(scores).value; }
      store<W>(shared_memory + first, scores);
    }
    group.sync();
  }
  /// Replaces the scores by their weights; returns the statistics of the row. Each thread reduces its own packs, then
  /// all threads combine the partial results in the order of the threads.
  TCNCA_HOST_DEVICE detail::softmax_row<A> normalize(int begin, int count) const {
    A* const partial = shared_memory + round_up(in.chunk, index_t(W));
    auto const for_each_own_pack = [&](auto f) TCNCA_INLINE {
      for (int j = begin + group.rank() * W; j < count; j += group.size() * W) f(j);
    };
    auto const load_scores = [&](int j) TCNCA_INLINE { return load<W>(const_cast<A const*>(shared_memory + j)); };
    value maxima = broadcast<W>(-detail::infinity<A>()), sums = broadcast<W>(A(0));
    for_each_own_pack([&](int j) TCNCA_INLINE { maxima = max_or_second(load_scores(j), maxima); });
    partial[group.rank()] = maximum_of_lanes(maxima);
    group.sync();
    A maximum = partial[0];
    for (int r = 1; r < group.size(); r++) maximum = scalar_max(partial[r], maximum);
    value const subtrahend = broadcast<W>(detail::finite_maximum(maximum));
    for_each_own_pack([&](int j) TCNCA_INLINE {
      value const p = detail::exp_or_zero(load_scores(j) - subtrahend);
      sums = sums + p;
      store<W>(shared_memory + j, p);
    });
    partial[group.size() + group.rank()] = sum_lanes(sums);
    group.sync();
    A sum = 0;
    for (int r = 0; r < group.size(); r++) sum += partial[group.size() + r];
    return {maximum, sum};
  }
  TCNCA_HOST_DEVICE static A scalar_max(A a, A b) { return detail::if_greater(a, b, a, b); }
  TCNCA_HOST_DEVICE static A maximum_of_lanes(value v) {
    A maximum = v.lane(0);
    TCNCA_UNROLL
    for (int w = 1; w < W; w++) maximum = scalar_max(v.lane(w), maximum);
    return maximum;
  }

  /// The products of the weights with a tile of the values, times `factor`.
  TCNCA_HOST_DEVICE void store_output(detail::attention_chunk const& chunk, index_t t, int count, int column,
                                      A factor) const {
    constexpr int packs = Group::size() > 1 ? 1 : 8;  // independent sums on the CPU, to hide the latency of fma
    int const last = min_of(column + columns, in.value_dim()), i = int(in.position + t - chunk.origin);
    for (int c = column + group.rank() * packs * W; c < last; c += group.size() * packs * W) {
      detail::array<value, packs> sum;
      unroll<0, packs>([&](auto n) TCNCA_INLINE { sum[n] = broadcast<W>(A(0)); });
      philox_words words{};
      int const first = this->hidden(i);
      if constexpr (Shape.dropout && Shape.window) { words = this->dropout_words(chunk, i, first / 4 * 4); }
      for (int j = first; j < count; j++) {
        A weight = shared_memory[j];
        if constexpr (Shape.dropout) {
          if (j % 4 == 0) words = this->dropout_words(chunk, i, j);
          weight *= in.dropout.factor(words.of(j));
        }
        T const* const row = this->values(chunk, j);
        unroll<0, packs>([&](auto n) TCNCA_INLINE {
          sum[n] = fma(broadcast<W>(weight), this->load(row, c + int(n) * W < last ? c + int(n) * W : c, last), sum[n]);
        });
      }
      T* const to = params.o.at(chunk.batch, chunk.head, t, 0);
      unroll<0, packs>([&](auto n) TCNCA_INLINE {
        if (c + int(n) * W < last) this->store(to, c + int(n) * W, last, detail::normalized(sum[n], factor));
      });
    }
  }
};

/// Parameters of the state agent, once for the keys and once for the values; the same for all groups.
template <element T>
struct chunked_attention_state_params {
  tensor_view<T const, 4> rows, before;  // of the sequence, and of the state before
  tensor_view<T, 4> after;
  index_t chunk = 1, position = 0;
};

/// Writes the state after a call: a copy, no barrier. Item: 64 slots of one head.
template <class Group, element T>
struct chunked_attention_state_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = chunked_attention_state_params<T>;
  static constexpr index_t block = 64;
  TCNCA_HOST_DEVICE static constexpr index_t end(params_type const& p) { return p.position + p.rows.extent[2]; }
  /// Absolute position of slot 0: the beginning of the last, incomplete chunk.
  TCNCA_HOST_DEVICE static constexpr index_t origin(params_type const& p) { return end(p) / p.chunk * p.chunk; }
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) {
    return divide_up(end(p) - origin(p), block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.after.extent[0] * p.after.extent[1] * blocks(p);
  }
  static group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_state_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const head = item / blocks(p) % p.after.extent[1], batch = item / blocks(p) / p.after.extent[1];
    index_t const retained = max_of(index_t(0), p.position - origin(p));  // slots [0, retained) keep their content
    index_t const begin = item % blocks(p) * block, end_of_block = min_of(begin + block, end(p) - origin(p));
    index_t const first = p.before.data == p.after.data ? max_of(begin, retained) : begin;
    int const count = int(max_of(index_t(0), end_of_block - first)), dim = int(p.after.extent[3]);
    for_each_pair(group, count, dim, [&](int r, int d) TCNCA_INLINE {
      index_t const slot = first + r;
      if (slot >= retained) {
        *p.after.at(batch, head, slot, d) = *p.rows.at(batch, head, origin(p) + slot - p.position, d);
      } else {
        *p.after.at(batch, head, slot, d) = *p.before.at(batch, head, slot, d);
      }
    });
  }
};

}  // namespace tcnca
