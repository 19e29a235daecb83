// Sums of gradients of scores along diagonals, from those of warps of wgmma_scores: see wgmma_backward.hpp.
#pragma once
#include "mma_scores.hpp"
#include "wgmma_backward.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Stores bias_sums as the mma agent for queries does. Item: 256 diagonals of a block of queries, each by one thread;
/// no shared memory, no barriers.
template <class Group, element T, chunked_attention_shape Shape, chunked_attention_policy Policy>
struct chunked_attention_wgmma_diagonals_agent : detail::attention_group<Group, T, Shape, Policy> {
  using base = detail::attention_group<Group, T, Shape, Policy>;
  using typename base::A;
  using queries = chunked_attention_mma_scores_agent<Group, T, Shape, Policy, attention_side::queries>;
  using params_type = chunked_attention_wgmma_backward_params<T>;
  static constexpr int Br = queries::Br, M = queries::M, block = 256;

  params_type const& params;
  TCNCA_HOST_DEVICE chunked_attention_wgmma_diagonals_agent(Group g, params_type const& p, A*, A*)
      : base{g, p.backward.in}, params(p) {}

  TCNCA_HOST_DEVICE static constexpr index_t blocks(params_type const& p) {
    return divide_up(queries::bias_row(p.backward.in.chunk), index_t(block));
  }
  TCNCA_HOST_DEVICE static constexpr index_t items(params_type const& p) {
    return p.backward.wants_biases() ? p.chunks * queries::row_blocks(p.backward) * blocks(p) : 0;
  }
  static group_memory memory(params_type const&) { return {}; }

  TCNCA_HOST_DEVICE void operator()(index_t item) const {
    using scratch = chunked_attention_wgmma_scratch;
    index_t const number = item / blocks(params), row_blocks = queries::row_blocks(params.backward),
                  chunk = number / row_blocks, row = queries::bias_row(params.backward.in.chunk);
    auto const c = this->chunk_of(params.first_chunk + chunk);
    int const block_row = int(number % row_blocks), from = int(item % blocks(params)) * block,
              columns = block_row * Br < c.last ? int(divide_up(c.keys, Br)) : 0,
              visible = Shape.causal ? min_of(columns, block_row + 1) : columns;
    A* const sums = params.backward.bias_sums + (params.first_chunk * row_blocks + number) * row;
    for (int x = from + this->group.rank(); x < min_of(index_t(from + block), row); x += Group::size()) {
      A sum = 0;
      TCNCA_UNROLL
      for (int w = 0; w < scratch::warps; w++) {
        // Number x is of key - query = x - (Br - 1), counted from the chunk and the block; a warp's number y from the
        // block of keys and the warp's queries.
        int const all = x - (Br - M) + M * w;
        for (int column = max_of(0, all / Br - 1); column <= min_of(all / Br, visible - 1); column++)
          if (int const y = all - column * Br; y >= 0 && y < scratch::diagonals)
            sum += params.diagonals[params.scratch.diagonals_at(chunk, block_row, column) + w * scratch::diagonals + y];
      }
      sums[x] = sum;
    }
  }
};

}  // namespace tcnca
