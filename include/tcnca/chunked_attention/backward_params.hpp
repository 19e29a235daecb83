// The parameters of the backward agents, and where the generic one keeps its blocks.
#pragma once
#include "common.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Where a group of the generic backward pass keeps its blocks.
struct chunked_attention_backward_plan {
  memory_place query, grad_output, key, key_columns, value_columns, weight, derivative, bias, statistics, grad_key,
      grad_value, grad_query, panel;
  memory_place query_pairs, grad_output_pairs, weight_pairs, derivative_pairs, derivative_rows;  // products of bf16
  int query_row = 0, value_row = 0;              // elements from one row of a gradient block to the next
  int splits = 1;                                // items per chunk
  size_t shared_memory = 0, global_scratch = 0;  // elements
};

/// Parameters of every backward agent; the same for all groups.
template <element T>
struct chunked_attention_backward_params {
  using A = accumulate_t<T>;
  chunked_attention_inputs<T> in;
  tensor_view<A const, 4> lse;
  tensor_view<T const, 4> grad_o;
  tensor_view<A const, 4> grad_keys_out, grad_values_out;
  tensor_view<T, 4> grad_q, grad_k, grad_v;
  tensor_view<A, 2> grad_bias;
  tensor_view<A, 4> grad_keys_in, grad_values_in;
  A* delta = nullptr;  // [batch, heads, length]: grad_o . o of each query
  // Generic; rows are those of the longest part of a chunk, heads those that share a head of keys.
  A* bias_sums = nullptr;                     // [item][head][2 rows - 1]
  A* query_sums = nullptr;                    // if there are splits: [item][head][rows][query_row]
  chunked_attention_backward_plan plan = {};  // of the generic agent

  index_t bias_stride = 0, query_stride = 0;  // packed: elements of bias_sums and query_sums per sequence

  // Which results the caller wants; what only others need is not computed. Those of a sequence, where it has its own
  // parameters.
  TCNCA_HOST_DEVICE bool wants_keys() const { return grad_k.present() || grad_keys_in.present(); }
  TCNCA_HOST_DEVICE bool wants_values() const { return grad_v.present() || grad_values_in.present(); }
  TCNCA_HOST_DEVICE bool wants_queries() const { return grad_q.present(); }
  TCNCA_HOST_DEVICE bool wants_biases() const { return grad_bias.present(); }

  /// Index of a query in delta.
  TCNCA_HOST_DEVICE index_t delta_index(detail::attention_chunk const& c, int i) const {
    return (c.batch * in.heads() + c.head) * in.q.extent[2] + c.origin + i - in.position;
  }
};

}  // namespace tcnca
