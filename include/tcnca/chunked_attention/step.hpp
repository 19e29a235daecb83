// A few queries of a causal attention at a time, as in decoding: a group takes one query past the keys of its chunk, a key a pack of its
// elements at a time. The state after is written by an agent of its own, when all have read the state before.
#pragma once
#include "forward.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
/// Queries of a call for which this is the faster way.
inline constexpr index_t chunked_attention_step_limit = 4;
}  // namespace detail

/// One item: a query and a tile of the value dimension. Policy: of the forward pass.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_step_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using typename base::A, typename base::value;
  using base::group, base::in, base::W, base::softmax;
  using params_type = chunked_attention_forward_params<T>;
  static constexpr int columns = 512;  // of the value tile
  static constexpr size_t shared_memory_elements(index_t chunk) {
    return size_t(round_up(chunk, index_t(W))) + 2 * size_t(Group::size());
  }

  params_type const& params;
  A* shared_memory;
  TCNCA_HOST_DEVICE chunked_attention_step_agent(Group g, params_type const& p, A* shared_memory, A*)
      : base{g, p.in}, params(p), shared_memory(shared_memory) {}

  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.in.q.extent[0] * p.in.heads() * p.in.q.extent[2] * divide_up(p.in.value_dim(), columns);
  }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const tiles = divide_up(in.value_dim(), columns), length = in.q.extent[2];
    int const column = int(item % tiles) * columns;
    index_t const t = item / tiles % length, row = item / tiles / length;
    auto const chunk = this->chunk_of(row * in.chunks() + (in.position + t) / in.chunk - in.first_chunk());
    int const i = int(in.position + t - chunk.origin), count = this->visible(chunk, i);
    score(chunk, i, count);
    A scale = A(1);
    if constexpr (softmax) {
      auto const [most, total] = normalize(count);
      scale = detail::is_zero(total) ? A(0) : A(1) / total;
      if (params.lse.present() && column == 0 && group.rank() == 0)
        detail::store_lse(params.lse, chunk.batch, chunk.head, t, most, total);
    }
    output(chunk, t, count, column, scale);
    group.sync();  // the next item reuses the memory
  }

 private:
  TCNCA_HOST_DEVICE void score(detail::attention_chunk const& chunk, int i, int count) const {
    T const* const query = this->query(chunk, i);
    A const scale = this->scale(chunk, i);
    for (int first = group.rank() * W; first < count; first += group.size() * W) {
      value scores = broadcast<W>(-detail::infinity<A>());
      TCNCA_UNROLL
      for (int w = 0; w < W; w++) {
        int const j = first + w;
        if (j >= count) break;
        T const* const key = this->key(chunk, j);
        value sum = broadcast<W>(A(0));
        for (int d = 0; d < in.key_dim(); d += W)
          sum = fma(this->load(query, d, in.key_dim()) * broadcast<W>(scale), this->load(key, d, in.key_dim()), sum);
        A s = sum_lanes(sum);
        if constexpr (Shape.bias) { s += *in.bias.at(chunk.head, in.chunk - 1 + j - i); }
        scores.set_lane(w, s);
      }
      if constexpr (!softmax) { scores = detail::attention_weight<Shape.function>(scores).value; }
      store<W>(shared_memory + first, scores);
    }
    group.sync();
  }
  struct statistics {
    A most, total;
  };
  /// Scores to weights; each thread's part first, then all parts in their order.
  TCNCA_HOST_DEVICE statistics normalize(int count) const {
    A* const parts = shared_memory + round_up(in.chunk, index_t(W));
    auto const each = [&](auto f) TCNCA_INLINE {
      for (int j = group.rank() * W; j < count; j += group.size() * W) f(j);
    };
    value most = broadcast<W>(-detail::infinity<A>()), total = broadcast<W>(A(0));
    each([&](int j) TCNCA_INLINE { most = max_or_second(load<W>(const_cast<A const*>(shared_memory + j)), most); });
    parts[group.rank()] = fold(most);
    group.sync();
    A all = parts[0];
    for (int r = 1; r < group.size(); r++) all = detail::if_greater(parts[r], all, parts[r], all);
    A const zero_point = detail::is_minus_infinity(all) ? A(0) : all;
    each([&](int j) TCNCA_INLINE {
      value const p = detail::exp_or_zero(load<W>(const_cast<A const*>(shared_memory + j)) - broadcast<W>(zero_point));
      total = total + p;
      store<W>(shared_memory + j, p);
    });
    parts[group.size() + group.rank()] = sum_lanes(total);
    group.sync();
    A sum = 0;
    for (int r = 0; r < group.size(); r++) sum += parts[group.size() + r];
    return {all, sum};
  }
  TCNCA_HOST_DEVICE static A fold(value v) {
    A most = v.lane(0);
    TCNCA_UNROLL
    for (int w = 1; w < W; w++) most = detail::if_greater(v.lane(w), most, v.lane(w), most);
    return most;
  }

  TCNCA_HOST_DEVICE void output(detail::attention_chunk const& chunk, index_t t, int count, int column, A scale) const {
    constexpr int packs = Group::size() > 1 ? 1 : 8;  // side by side: each sum waits for the one before
    int const last = min_of(column + columns, in.value_dim()), i = int(in.position + t - chunk.origin);
    for (int c = column + group.rank() * packs * W; c < last; c += group.size() * packs * W) {
      detail::array<value, packs> sum;
      unroll<0, packs>([&](auto n) TCNCA_INLINE { sum[n] = broadcast<W>(A(0)); });
      philox_words words{};
      for (int j = 0; j < count; j++) {
        A weight = shared_memory[j];
        if constexpr (Shape.dropout) {
          if (j % 4 == 0) words = base::random_words(chunk, i, j);
          weight *= base::dropout(words.of(j));
        }
        T const* const row = this->values(chunk, j);
        unroll<0, packs>([&](auto n) TCNCA_INLINE {
          sum[n] = fma(broadcast<W>(weight), this->load(row, c + int(n) * W < last ? c + int(n) * W : c, last), sum[n]);
        });
      }
      T* const to = params.o.at(chunk.batch, chunk.head, t, 0);
      unroll<0, packs>([&](auto n) TCNCA_INLINE {
        if (c + int(n) * W < last)
          this->store(to, c + int(n) * W, last,
                      detail::is_zero(scale) ? broadcast<W>(A(0)) : sum[n] * broadcast<W>(scale));
      });
    }
  }
};

/// What the state after is made of; the same for all groups.
template <element T>
struct chunked_attention_state_params {
  tensor_view<T const, 4> rows, before;
  tensor_view<T, 4> after;
  index_t chunk = 1, position = 0;
};

/// One item: some slots of the keys, or the values, of one head after the call.
template <class Group, element T>
struct chunked_attention_state_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = chunked_attention_state_params<T>;
  static constexpr index_t block = 64;
  TCNCA_HOST_DEVICE static constexpr index_t end(params_type const& p) { return p.position + p.rows.extent[2]; }
  /// Absolute position of slot 0: what is before it has been forgotten.
  TCNCA_HOST_DEVICE static constexpr index_t origin(params_type const& p) { return end(p) / p.chunk * p.chunk; }
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) {
    return divide_up(end(p) - origin(p), block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.after.extent[0] * p.after.extent[1] * blocks(p);
  }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_state_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    auto const& p = params;
    index_t const first = item % blocks(p) * block, head = item / blocks(p) % p.after.extent[1],
                  batch = item / blocks(p) / p.after.extent[1];
    int const count = int(min_of(block, end(p) - origin(p) - first)), dim = int(p.after.extent[3]);
    index_t const kept = max_of(index_t(0), p.position - origin(p));  // slots that come from the state before
    bool const in_place = p.before.data == p.after.data;
    for_each_pair(group, count, dim, [&](int r, int d) TCNCA_INLINE {
      index_t const slot = first + r;
      if (slot >= kept) *p.after.at(batch, head, slot, d) = *p.rows.at(batch, head, origin(p) + slot - p.position, d);
      else if (!in_place) *p.after.at(batch, head, slot, d) = *p.before.at(batch, head, slot, d);
    });
  }
};

}  // namespace tcnca
