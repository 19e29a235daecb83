// Which agents execute a call, their parameters, their workspace, and the order of the launches.
//
//   forward   - up to chunked_attention_step_limit causal queries: the step agent; the combine agent if it splits rows
//             - 16-bit T on tensor cores: the wgmma agent if the tuning asks for clusters, the device is sm_90a, no
//               state is read and q, k, v permit tensor maps; else the mma agent
//             - otherwise the generic agent
//             then the state agent, if the state after the call is wanted
//   backward  the delta agent (softmax); then
//             - 16-bit T on tensor cores: if the tuning asks for clusters, the device is sm_90a, there is no state, and
//               tensors permit tensor maps: wgmma_backward.hpp; else the gradients of values, keys and queries, one
//               launch each; then the gradients of biases
//             - otherwise the generic agent and the reduce agent
//             A launch all of whose results are absent is left out
#pragma once
#include <cmath>
#include <type_traits>

#include "../launch/alignment.hpp"
#include "../launch/launch.hpp"
#include "../launch/tensor_map.hpp"
#include "forward.hpp"
#include "mma_forward.hpp"
#include "mma_scores.hpp"
#include "reduce.hpp"
#include "rotary_bias.hpp"
#include "state.hpp"
#include "step.hpp"
#include "step_combine.hpp"
#include "wgmma_diagonals.hpp"
#include "wgmma_forward.hpp"
#include "wgmma_products.hpp"
#include "wgmma_scores.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The agents of an attention as tuned for an executor.
template <element T, chunked_attention_shape Shape, class Tuning, class Executor>
struct tuned_chunked_attention {
  using traits = executor_traits<Executor>;
  static constexpr chunked_attention_policy forward = Tuning::forward(traits::target);
  static constexpr chunked_attention_policy backward = Tuning::backward(traits::target);
  using forward_group = typename traits::template group<forward.threads>;
  using backward_group = typename traits::template group<backward.threads>;
  template <class Group>
  static constexpr bool on_tensor_cores(chunked_attention_policy p) {
    return p.tensor_cores && sizeof(T) == 2 && warp_of<Group>::exists && Group::size() == p.threads;
  }
  static constexpr bool tensor_cores = on_tensor_cores<forward_group>(forward),
                        backward_tensor_cores = on_tensor_cores<backward_group>(backward) && !Shape.grouped;
  using forward_agent =
      std::conditional_t<tensor_cores, chunked_attention_mma_forward_agent<forward_group, T, Shape, forward>,
                         chunked_attention_forward_agent<forward_group, T, Shape, forward>>;
  /// Whether there is a cluster_agent, which replaces forward_agent on devices that support it.
  static constexpr bool clustered =
      tensor_cores && !Shape.has_options() && forward.clusters && tensor_map_encoder<Executor>::exists;
  using cluster_agent =
      chunked_attention_wgmma_forward_agent<typename traits::template group<forward.threads + wgmma_tile::threads>,
                                            forward_group, T, Shape, forward>;
  using step_agent = chunked_attention_step_agent<forward_group, T, Shape, forward>;
  // Groups of one warp: each thread adds the statistics of all shares, so warps of a multiprocessor would only wait.
  using combine_agent = chunked_attention_combine_agent<typename traits::template group<32>, T, Shape, forward>;
  using state_agent = chunked_attention_state_agent<forward_group, T>;
  using backward_agent = chunked_attention_backward_agent<backward_group, T, Shape, backward>;
  using grad_values_agent = chunked_attention_mma_values_agent<backward_group, T, Shape, backward>;
  using grad_keys_agent = chunked_attention_mma_scores_agent<backward_group, T, Shape, backward, attention_side::keys>;
  using grad_queries_agent =
      chunked_attention_mma_scores_agent<backward_group, T, Shape, backward, attention_side::queries>;
  using grad_biases_agent = chunked_attention_mma_biases_agent<backward_group, T, Shape, backward>;
  /// Whether there are agents by wgmma, which replace those of values, keys and queries on devices that support them.
  static constexpr bool backward_clustered = backward_tensor_cores && !Shape.has_options() && backward.clusters &&
                                             backward.valid_cluster() && tensor_map_encoder<Executor>::exists;
  using wgmma_group = typename traits::template group<backward.threads + wgmma_tile::threads>;
  using scores_agent = chunked_attention_wgmma_scores_agent<wgmma_group, backward_group, T, Shape, backward>;
  using products_agent = chunked_attention_wgmma_products_agent<wgmma_group, backward_group, T, Shape, backward>;
  using diagonals_agent = chunked_attention_wgmma_diagonals_agent<backward_group, T, Shape, backward>;
  using delta_agent = chunked_attention_delta_agent<backward_group, T, backward.width>;
  using reduce_agent = chunked_attention_reduce_agent<backward_group, T, Shape, backward>;
  using rotary_agent = rotary_bias_agent<forward_group, T>;
  using rotary_backward_agent = rotary_bias_backward_agent<forward_group, T>;
};

/// The launches of each entry point. Arguments are valid.
template <element T, chunked_attention_shape Shape, class Tuning, class Executor>
struct chunked_attention_dispatch {
  using A = accumulate_t<T>;
  using agents = tuned_chunked_attention<T, Shape, Tuning, Executor>;
  using forward_params = chunked_attention_forward_params<T>;
  using cluster_params = chunked_attention_cluster_params<T>;
  using backward_params = chunked_attention_backward_params<T>;
  using wgmma_params = chunked_attention_wgmma_backward_params<T>;
  static constexpr bool softmax = Shape.function == attention_function::softmax;
  using steps = chunked_attention_steps<typename agents::step_agent, typename agents::step_agent,
                                        typename agents::combine_agent, Executor>;

  static forward_params make_forward_params(auto const& a) {
    using agent_type = typename agents::forward_agent;
    forward_params p{.in = make_inputs(a), .o = a.o, .lse = a.lse};
    constexpr int elements = max_of(agent_type::W, agents::step_agent::vector);
    p.in.vectorizable = rows_vectorizable<Executor>(elements, a.q, a.k, a.v, a.keys_in, a.values_in, a.o);
    if constexpr (!agents::tensor_cores) { p.plan = agent_type::plan_for(p.in.key_dim(), p.in.value_dim()); }
    return p;
  }
  /// The parameters of the agent for clusters. False if it cannot execute the call.
  TCNCA_HIDDEN static bool make_cluster_params(Executor e, forward_params const& p, cluster_params& result) {
    auto const& in = p.in;
    if (in.position % in.chunk != 0) return false;
    auto const plan = chunked_attention_cluster_plan::of(in.key_dim(), in.value_dim(), in.rows());
    if (!executor_traits<Executor>::template supports<typename agents::cluster_agent, cluster_params>(
            e, agents::cluster_agent::memory_for(plan)))
      return false;
    result = cluster_params{.forward = p, .plan = plan};
    tensor_map_encoder<Executor> const maps;
    constexpr int rows = chunked_attention_cluster_plan::unit;
    return maps.encode(result.q, in.q, rows) && maps.encode(result.k, in.k, rows) && maps.encode(result.v, in.v, rows);
  }
  static workspace_bytes forward_workspace(Executor e, forward_params const& p) {
    if constexpr (Shape.causal) {
      if (is_step(p)) return steps::workspace_for(e, {p});
    }
    return workspace_for<typename agents::forward_agent>(e, p);
  }
  /// keys_out, values_out: of the state after the call; may be absent.
  TCNCA_HIDDEN static status forward(Executor e, forward_params const& p, tensor_view<T, 4> const& keys_out,
                                     tensor_view<T, 4> const& values_out, workspace scratch) {
    if (status const s = launch_forward(e, p, scratch); !s.ok()) return s;
    if (!keys_out.present()) return {};
    if (status const s = launch_state(e, p.in, p.in.k, p.in.keys_in, keys_out); !s.ok()) return s;
    return launch_state(e, p.in, p.in.v, p.in.values_in, values_out);
  }

  /// Offsets, in bytes of the workspace, of the sums that the items of a backward pass store. p: of one call, or of the
  /// longest of packed `sequences`; queries: of all heads of all of them.
  struct sums_layout {
    size_t delta = 0, bias = 0, query = 0, end = 0;
    explicit sums_layout(backward_params const& p)
        : sums_layout(p, 1, p.in.q.extent[0] * p.in.heads() * p.in.q.extent[2]) {}
    sums_layout(backward_params const& p, index_t sequences, index_t queries) {
      auto const bytes = [](index_t n) { return workspace_part(size_t(n), sizeof(A)); };
      bias = query = softmax ? bytes(queries) : 0;
      if constexpr (agents::backward_tensor_cores) {
        index_t const sums = saturating_multiply(sequences, agents::grad_queries_agent::bias_elements(p));
        if (Shape.bias) query = saturating_add(query, bytes(sums));
        end = query;
      } else {
        using agent_type = typename agents::backward_agent;
        index_t const rows = p.in.rows(), chunks = p.in.key_chunks() * sequences;
        index_t const bias_items = agent_type::max_bias_items(p.in.key_dim(), rows, chunks);
        index_t const query_items = agent_type::max_query_items(p.in.key_dim(), rows, chunks);
        if (Shape.bias) query = saturating_add(query, bytes(bias_items * p.in.group * (2 * rows - 1)));
        end = saturating_add(query, bytes(query_items * p.in.group * rows * p.plan.query_row));
      }
    }
  };

  static backward_params make_backward_params(auto const& a) {
    using agent_type = typename agents::backward_agent;
    backward_params p{.in = make_inputs(a),
                      .lse = a.lse,
                      .grad_o = a.grad_o,
                      .grad_keys_out = a.grad_keys_out,
                      .grad_values_out = a.grad_values_out,
                      .grad_q = a.grad_q,
                      .grad_k = a.grad_k,
                      .grad_v = a.grad_v,
                      .grad_bias = a.grad_bias,
                      .grad_keys_in = a.grad_keys_in,
                      .grad_values_in = a.grad_values_in};
    constexpr int elements = agents::backward_tensor_cores ? swizzled_rows::vector_elements : agent_type::W;
    p.in.vectorizable =
        rows_vectorizable<Executor>(elements, a.q, a.k, a.v, a.keys_in, a.values_in, a.o, a.grad_o, a.grad_keys_out,
                                    a.grad_values_out, a.grad_q, a.grad_k, a.grad_v, a.grad_keys_in, a.grad_values_in);
    if constexpr (!agents::backward_tensor_cores) {
      p.plan = agent_type::plan_for(p.in.key_dim(), p.in.value_dim(), p.in.rows(), p.in.key_chunks(), p.in.group);
    }
    return p;
  }
  static workspace_bytes backward_workspace(Executor e, backward_params const& p) {
    size_t const sums = sums_layout(p).end;
    if constexpr (agents::backward_clustered) {
      size_t const bytes = wgmma_chunk_bytes(e, p);
      return workspace_bytes::of(sums, bytes, chunked_attention_wgmma_scratch::most_chunks(bytes, p.in.all_chunks()));
    } else if constexpr (agents::backward_tensor_cores) {
      return workspace_for<typename agents::grad_values_agent>(e, p, sums);
    } else {
      return workspace_for<typename agents::backward_agent>(e, p, sums);
    }
  }
  /// o: the output of the forward pass (softmax).
  TCNCA_HIDDEN static status backward(Executor e, backward_params p, tensor_view<T const, 4> const& o,
                                      workspace scratch) {
    char* const memory = static_cast<char*>(scratch.data);
    sums_layout const at(p);
    p.delta = reinterpret_cast<A*>(memory + at.delta);
    p.bias_sums = reinterpret_cast<A*>(memory + at.bias);
    p.query_sums = reinterpret_cast<A*>(memory + at.query);
    if constexpr (softmax) {
      status const s = launch<typename agents::delta_agent>(
          e, {.o = o, .grad_o = p.grad_o, .delta = p.delta, .vectorizable = p.in.vectorizable});
      if (!s.ok()) return s;
    }
    if constexpr (agents::backward_tensor_cores) {
      if constexpr (agents::backward_clustered) {
        wgmma_params w;
        if (make_wgmma_params(e, p, workspace_after(scratch, at.end), w)) return wgmma_backward(e, w);
      }
      status const s = launch_mma<std::type_identity_t>(e, p, p);
      return s.ok() ? launch<typename agents::grad_biases_agent>(e, p) : s;
    } else {
      status const s = launch<typename agents::backward_agent>(e, p, workspace_after(scratch, at.end));
      if (!s.ok()) return s;
      return launch<typename agents::reduce_agent>(e, p);
    }
  }

  /// The launches by mma of all gradients but that of biases. Of<Agent> is launched; `wanted` has the results.
  template <template <class> class Of>
  TCNCA_HIDDEN static status launch_mma(Executor e, auto const& p, backward_params const& wanted) {
    status s;
    if (wanted.wants_values()) s = launch<Of<typename agents::grad_values_agent>>(e, p);
    if (s.ok() && wanted.wants_keys()) s = launch<Of<typename agents::grad_keys_agent>>(e, p);
    if (s.ok() && (wanted.wants_queries() || wanted.wants_biases()))
      s = launch<Of<typename agents::grad_queries_agent>>(e, p);
    return s;
  }

  /// The parameters of the backward pass by wgmma, for as many chunks as the workspace holds. False if it cannot
  /// execute the call. 64 rows from any multiple of 64 on must not reach into the next chunk.
  TCNCA_HIDDEN static bool make_wgmma_params(Executor e, backward_params const& p, workspace memory,
                                             wgmma_params& result) {
    auto const& in = p.in;
    size_t const bytes = wgmma_chunk_bytes(e, p);
    constexpr int box = chunked_attention_wgmma_scratch::box;
    if (bytes == 0 || memory.bytes < bytes || !in.vectorizable || in.position % in.chunk != 0 ||
        (in.chunk % box != 0 && in.chunks() > 1))
      return false;
    auto const scratch = chunked_attention_wgmma_scratch::of(in.rows());
    index_t const chunks =
        min_of(chunked_attention_wgmma_scratch::most_chunks(bytes, in.all_chunks()), index_t(memory.bytes / bytes));
    T* const weights = static_cast<T*>(memory.data);
    T* const derivatives = weights + chunks * scratch.elements();
    result = wgmma_params{.backward = p,
                          .scratch = scratch,
                          .groups = wgmma_params::groups_for(in.rows()),
                          .chunks = chunks,
                          .weights = weights,
                          .derivatives = derivatives,
                          .diagonals = reinterpret_cast<float*>(derivatives + chunks * scratch.elements())};
    auto const matrices = [&](T const* data) {
      return contiguous<T const>(data, index_t(1), chunks, index_t(scratch.rows), index_t(scratch.rows));
    };
    tensor_map_encoder<Executor> const maps;
    return maps.encode(result.q, in.q, box) && maps.encode(result.k, in.k, box) && maps.encode(result.v, in.v, box) &&
           maps.encode(result.grad_o, p.grad_o, box) && maps.encode(result.weight_tiles, matrices(weights), box) &&
           maps.encode(result.derivative_tiles, matrices(derivatives), box);
  }

  TCNCA_HIDDEN static status rotary(Executor e, auto const& a) {
    return launch<typename agents::rotary_agent>(e, {.a = a.a, .b = a.b, .bias = a.bias, .chunk = a.chunk});
  }
  TCNCA_HIDDEN static status rotary_backward(Executor e, auto const& a) {
    return launch<typename agents::rotary_backward_agent>(
        e, {.a = a.a, .b = a.b, .grad_bias = a.grad_bias, .grad_a = a.grad_a, .grad_b = a.grad_b, .chunk = a.chunk});
  }

 private:
  static chunked_attention_inputs<T> make_inputs(auto const& a) {
    bool const is_default = a.scale == 0;
    return {.q = a.q,
            .k = a.k,
            .v = a.v,
            .bias = a.bias,
            .lengths = a.lengths,
            .keys_in = a.keys_in,
            .values_in = a.values_in,
            .chunk = a.chunk,
            .position = a.position,
            .scale = A(softmax && is_default ? 1 / std::sqrt(double(a.q.extent[3])) : a.scale),
            .scale_by_count = !softmax && is_default,
            .dropout = dropout_params<A>::of(a.dropout, a.seed, a.offset),
            .alibi_slopes = a.alibi_slopes,
            .head_lengths = a.head_lengths,
            .window = int(min_of(a.window, a.chunk)),
            .group = Shape.grouped && a.k.extent[1] > 0 ? a.q.extent[1] / a.k.extent[1] : 1,
            .random_state = a.random_state};
  }

  static bool is_step(forward_params const& p) {
    return p.in.q.extent[2] > 0 && p.in.q.extent[2] <= chunked_attention_step_limit;
  }
  TCNCA_HIDDEN static status launch_forward(Executor e, forward_params const& p, workspace scratch) {
    if (p.in.q.extent[2] == 0) return {};
    if constexpr (Shape.causal) {
      if (is_step(p)) return steps::launch(e, {p}, scratch);
    }
    if constexpr (agents::clustered) {
      cluster_params clusters;
      if (make_cluster_params(e, p, clusters)) return launch<typename agents::cluster_agent>(e, clusters, scratch);
    }
    return launch<typename agents::forward_agent>(e, p, scratch);
  }
  TCNCA_HIDDEN static status launch_state(Executor e, chunked_attention_inputs<T> const& in,
                                          tensor_view<T const, 4> const& rows, tensor_view<T const, 4> const& before,
                                          tensor_view<T, 4> const& after) {
    return launch<typename agents::state_agent>(
        e, {.rows = rows, .before = before, .after = after, .chunk = in.chunk, .position = in.position});
  }

  /// Bytes of workspace per chunk for the backward pass by wgmma; 0 if this device or call does not use it. Does not
  /// depend on pointers or strides, and does not become smaller for a longer sequence.
  static size_t wgmma_chunk_bytes([[maybe_unused]] Executor e, [[maybe_unused]] backward_params const& p) {
    if constexpr (agents::backward_clustered) {
      using scratch = chunked_attention_wgmma_scratch;
      bool const state = p.in.keys_in.given() || p.grad_keys_out.given() || p.grad_values_out.given();
      if (state || p.in.chunk > scratch::most_rows || p.in.all_chunks() == 0) return 0;
      if (!executor_traits<Executor>::template supports<typename agents::scores_agent, wgmma_params>(
              e, agents::scores_agent::memory({})))
        return 0;
      return scratch::of(p.in.rows()).chunk_bytes(sizeof(T), Shape.bias);
    }
    return 0;
  }
  TCNCA_HIDDEN static status wgmma_backward(Executor e, wgmma_params w) {
    index_t const all = w.backward.in.all_chunks(), most = w.chunks;
    for (; w.first_chunk < all; w.first_chunk += most) {
      w.chunks = min_of(most, all - w.first_chunk);
      if (status const s = launch<typename agents::scores_agent>(e, w); !s.ok()) return s;
      if (status const s = launch<typename agents::products_agent>(e, w); !s.ok()) return s;
      if (status const s = launch<typename agents::diagonals_agent>(e, w); !s.ok()) return s;
    }
    return launch<typename agents::grad_biases_agent>(e, w.backward);
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
