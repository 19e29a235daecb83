// The parameters of the forward agents, and where the generic one keeps its blocks.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Where a group of the generic forward pass keeps its blocks.
struct chunked_attention_forward_plan {
  memory_place query, key, score, value, output, bias, statistics, panel;
  int output_row = 0;                            // elements from one row of the output block to the next
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// Parameters of every forward agent; the same for all groups.
template <element T>
struct chunked_attention_forward_params {
  chunked_attention_inputs<T> in;
  tensor_view<T, 4> o;
  tensor_view<accumulate_t<T>, 4> lse;
  chunked_attention_forward_plan plan = {};  // of the generic agent
};

}  // namespace tcnca
