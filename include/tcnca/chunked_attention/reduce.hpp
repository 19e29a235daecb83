// What a backward pass of attention needs before and after its main work: grad_o . o of each query, and sums of what several items left.
#pragma once
#include "backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// What the delta of queries is made of; the same for all groups.
template <element T>
struct chunked_attention_delta_params {
  tensor_view<T const, 4> o, grad_o;
  accumulate_t<T>* delta;
  bool vectorizable;
};

/// delta = grad_o . o: softmax's gradient by a score is p (dp - delta). One item: a few queries, each by one thread.
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

/// Adds up the shares of the items, in their order: gradients of queries where a chunk's keys were shared out, and of biases.
/// Items: blocks of queries, then blocks of the biases of each head.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_reduce_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using typename base::A;
  using base::group, base::in;
  struct params_type {
    chunked_attention_backward_params<T> of;
    tensor_view<A, 2> grad_bias;
  };
  static constexpr index_t block = 256;
  static constexpr int neighbours = 8;  // diagonals of a thread
  TCNCA_HOST_DEVICE static constexpr index_t chunks(params_type const& p) {
    return p.of.in.q.extent[0] * p.of.in.heads() * p.of.in.chunks();
  }
  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) { return divide_up(p.of.in.rows(), block); }
  TCNCA_HOST_DEVICE static constexpr index_t query_items(params_type const& p) {
    return p.of.plan.splits > 1 ? chunks(p) * blocks(p) : 0;
  }
  TCNCA_HOST_DEVICE static constexpr index_t bias_blocks(params_type const& p) {
    return divide_up(2 * p.of.in.chunk - 1, block);
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return query_items(p) + (Shape.bias ? p.grad_bias.extent[0] * bias_blocks(p) : 0);
  }

  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_reduce_agent(Group g, params_type const& p, A*, A*)
      : base{g, p.of.in}, params(p) {}

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    if (item < query_items(params)) queries(item / blocks(params), item % blocks(params) * block);
    else if (Shape.bias)
      biases((item - query_items(params)) / bias_blocks(params),
             (item - query_items(params)) % bias_blocks(params) * block);
  }

 private:
  TCNCA_HOST_DEVICE void queries(index_t number, index_t from) const {
    auto const& p = params.of;
    auto const chunk = this->chunk_of(number);
    int const splits = p.plan.splits, row = p.plan.query_row, dim = in.key_dim();
    int const first = max_of(chunk.first, int(from)), last = min_of(chunk.last, int(from + block));
    for (index_t n = group.rank(); n < index_t(last - first) * dim; n += group.size()) {
      int const i = first + int(n / dim), d = int(n % dim);
      A sum = 0;
      for (int s = 0; s < splits; s++) sum += p.query_sums[((number * splits + s) * in.rows() + i) * row + d];
      *p.grad_q.at(chunk.batch, chunk.head, chunk.origin + i - in.position, d) =
          from_accumulate<T>(sum * this->scale(chunk, i));
    }
  }
  TCNCA_HOST_DEVICE void biases(index_t head, index_t from) const {
    auto const& p = params.of;
    index_t const length = 2 * in.rows() - 1, unused = in.chunk - in.rows();  // at both ends of the table
    index_t const each = in.chunks() * p.plan.splits, heads = in.heads();
    for (index_t d = from + group.rank() * neighbours; d < min_of(from + block, 2 * in.chunk - 1);
         d += group.size() * neighbours) {
      double sum[neighbours] = {};  // many items, one number each
      for (index_t b = 0; b < in.q.extent[0]; b++)
        for (index_t s = 0; s < each; s++) {
          A const* const items = p.bias_sums + ((b * heads + head) * each + s) * length - unused + d;
          TCNCA_UNROLL
          for (int n = 0; n < neighbours; n++)
            if (d + n >= unused && d + n < unused + length) sum[n] += double(items[n]);
        }
      TCNCA_UNROLL
      for (int n = 0; n < neighbours; n++)
        if (d + n < 2 * in.chunk - 1) *params.grad_bias.at(head, d + n) = A(sum[n]);
    }
  }
};

}  // namespace tcnca
