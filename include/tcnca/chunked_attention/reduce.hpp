// Before and after the main work of a backward pass: delta = grad_o . o of each query, and the sums of what several
// items stored. No shared memory and no barriers: each result is made by one thread.
#pragma once
#include "backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Parameters of the delta agent; the same for all groups.
template <element T>
struct chunked_attention_delta_params {
  tensor_view<T const, 4> o, grad_o;
  accumulate_t<T>* delta = nullptr;
  bool vectorizable = false;
};

/// delta = grad_o . o: the gradient of softmax by a score is p (dp - delta). Item: 64 queries, each by one thread.
template <class Group, element T, int W>
struct chunked_attention_delta_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = chunked_attention_delta_params<T>;
  static constexpr index_t block = 64;
  TCNCA_HOST_DEVICE static constexpr index_t rows(params_type const& p) {
    return p.o.extent[0] * p.o.extent[1] * p.o.extent[2];
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) { return divide_up(rows(p), block); }
  static group_memory memory(params_type const&) { return {}; }

  Group group;
  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_delta_agent(Group g, params_type const& p, A*, A*) : group(g), params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const heads = params.o.extent[1], length = params.o.extent[2];
    int const dim = int(params.o.extent[3]);
    for (index_t row = item * block + group.rank(); row < min_of((item + 1) * block, rows(params));
         row += group.size()) {
      index_t const t = row % length, h = row / length % heads, b = row / length / heads;
      T const *const o = params.o.at(b, h, t, 0), *const g = params.grad_o.at(b, h, t, 0);
      auto even = broadcast<W>(A(0)), odd = even;
      int c = 0;
      for (; params.vectorizable && c + 2 * W <= dim; c += 2 * W)
        even = fma(load<W>(o + c), load<W>(g + c), even), odd = fma(load<W>(o + c + W), load<W>(g + c + W), odd);
      for (; c < dim; c += W) even = fma(load_some<W>(o + c, 1, dim - c), load_some<W>(g + c, 1, dim - c), even);
      params.delta[row] = sum_lanes(even + odd);
    }
  }
};

/// Adds the shares of the items of the generic backward agent in the order of the items: gradients of queries if there
/// are splits, and of biases unless sequences are packed. Items: blocks of 256 queries of each chunk, then blocks of
/// 256 biases of each head.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_reduce_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using typename base::A;
  using base::group, base::in;
  using params_type = chunked_attention_backward_params<T>;
  static constexpr index_t block = 256;
  static constexpr int biases_per_thread = 8;
  TCNCA_HOST_DEVICE static constexpr index_t query_blocks(params_type const& p) {
    return divide_up(p.in.rows(), block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t query_items(params_type const& p) {
    return p.plan.splits > 1 && p.wants_queries() ? p.in.all_chunks() * query_blocks(p) : 0;
  }
  TCNCA_HOST_DEVICE static constexpr index_t bias_blocks(params_type const& p) {
    return divide_up(2 * p.in.chunk - 1, block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return query_items(p) + (Shape.bias && !Shape.packed ? p.grad_bias.extent[0] * bias_blocks(p) : 0);
  }
  static group_memory memory(params_type const&) { return {}; }

  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_reduce_agent(Group g, params_type const& p, A*, A*) : base{g, p.in}, params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    index_t const bias_item = item - query_items(params);
    if (bias_item < 0) reduce_queries(item / query_blocks(params), item % query_blocks(params) * block);
    else if (Shape.bias) reduce_biases(bias_item / bias_blocks(params), bias_item % bias_blocks(params) * block);
  }

 private:
  TCNCA_HOST_DEVICE void reduce_queries(index_t number, index_t from) const {
    auto const chunk = this->chunk_of(number);
    int const splits = params.plan.splits, row = params.plan.query_row, dim = in.key_dim();
    int const first = max_of(chunk.first, int(from)), last = min_of(chunk.last, int(from + block));
    // The item of the first split, and the head among those of the item.
    index_t const together = this->heads_per_key(), head = chunk.head % together,
                  item = this->key_chunk(number) * splits;
    for (index_t n = group.rank(); n < index_t(last - first) * dim; n += group.size()) {
      int const i = first + int(n / dim), d = int(n % dim);
      A sum = 0;
      for (int s = 0; s < splits; s++)
        sum += params.query_sums[(((item + s) * together + head) * in.rows() + i) * row + d];
      *params.grad_q.at(chunk.batch, chunk.head, this->sequence_index(chunk, i), d) =
          from_accumulate<T>(sum * this->scale(chunk, i));
    }
  }
  /// The items hold the diagonals of `rows` positions; the bias table has `unused` more at each end, which get 0.
  TCNCA_HOST_DEVICE void reduce_biases(index_t head, index_t from) const {
    constexpr int N = biases_per_thread;
    index_t const length = 2 * in.rows() - 1, unused = in.chunk - in.rows();
    index_t const items_per_head = in.chunks() * params.plan.splits, together = this->heads_per_key(),
                  heads = in.heads() / together, key_head = head / together;
    for (index_t d = from + group.rank() * N; d < min_of(from + block, 2 * in.chunk - 1); d += group.size() * N) {
      double sum[N] = {};  // fp64: there may be many items
      for (index_t b = 0; b < in.q.extent[0]; b++)
        for (index_t s = 0; s < items_per_head; s++) {
          index_t const item = (b * heads + key_head) * items_per_head + s;
          A const* const shares = params.bias_sums + (item * together + head % together) * length - unused + d;
          TCNCA_UNROLL
          for (int n = 0; n < N; n++)
            if (d + n >= unused && d + n < unused + length) sum[n] += double(shares[n]);
        }
      TCNCA_UNROLL
      for (int n = 0; n < N; n++)
        if (d + n < 2 * in.chunk - 1) *params.grad_bias.at(head, d + n) = A(sum[n]);
    }
  }
};

}  // namespace tcnca
