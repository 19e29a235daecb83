// The operation chunked_attention: attention within chunks of a sequence, for values much wider than keys.
#pragma once
#include "chunked_attention/arguments.hpp"
#include "chunked_attention/dispatch.hpp"
#include "chunked_attention/packed.hpp"
#include "core/check.hpp"
#include "core/text.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Attention within chunks of a sequence (chunked_attention_shape says which), forward and backward. Only the backward
/// pass on sm_90a stores scores, those of some chunks at a time.
///
/// Shapes   q, k: [batch, heads, length, key_dim]; v, o: [batch, heads, length, value_dim]; key_dim 16 to 256,
///          value_dim 16 to 2048, multiples of 8. The last axis has stride 1, the others any non-negative stride (0
///          broadcasts an input, such as keys shared by heads). bias: [heads, 2 chunk - 1], added to score[i,j] is
///          bias[chunk - 1 + j - i]. lengths: [batch]. lse: [batch, heads, length, 2]: the maximum of a query's scores,
///          and log of the sum of exp(score - maximum); -infinity and 0 for a query without a valid key. Two numbers,
///          because adding the logarithm to a large maximum would round it away.
/// Scores   scale q . k + bias. scale: key_dim^-1/2 (softmax), 1 / n (laplace, relu2) with n the number of the query's
///          valid keys, at least 1; or the caller's. Valid are the keys of the query's chunk at absolute positions
///          below lengths[b] and, if causal, not after the query. A query without a valid key, or (softmax) whose
///          scores are all -infinity, gives 0. Masked keys are excluded from the sums, so that their NaN or infinite
///          values do not propagate.
/// Options  Shape.alibi: alibi_slopes [batch, heads] (strides of 0 broadcast), finite; - alibi_slopes[b,h] |i - j| is
///          added to the scores, together with the table's bias if there is one. The slopes have no gradient.
///          Shape.window, with causal: a query sees its latest `window` keys only, i - window < j <= i. Blocks of keys
///          outside of the windows are skipped, so the cost grows with the window, not with the chunk.
///          Shape.grouped: k, v, their gradients and all states have heads / group heads, for any divisor of `heads`;
///          head h of the queries attends to head h / group. Their gradients are sums over the group, in the order of
///          its heads. (Without this option strides of 0 broadcast k and v as well, but each head has its own
///          gradient, and adding them is up to the caller.)
///          Shape.head_lengths: head_lengths [batch, heads] in the executor's memory. Keys at absolute positions from
///          head_lengths[b,h] on are not valid, and queries there do not attend: o is 0, lse is that of a query
///          without a valid key, all gradients are those of a query that does not exist.
///          Fewer queries than keys: with causal, the first keys are a state. chunk = number of keys, position =
///          keys - queries, keys_in and values_in are views of all keys and values, k and v of the last ones. The mask
///          is then aligned at the bottom right. Gradients of the first keys are those of the state, grad_keys_in and
///          grad_values_in. More queries than keys: the first queries see no key; leave them out.
///          16-bit calls with these options use tensor cores by mma.sync, not wgmma; the backward pass of grouped heads
///          uses none.
/// Types    T for q, k, v, o and their gradients and states; accumulate_t<T> for biases, statistics, and the gradients
///          of biases and states.
/// State    keys, values: [batch, heads, chunk, key_dim | value_dim]; absolute position p in slot p mod chunk. Causal
///          attention only. The positions of the first chunk before `position` are read from keys_in, values_in. If the
///          last chunk is incomplete, its positions are written to keys_out, values_out, which may be the same memory
///          (then the cache is appended to); other slots are not written. Calls of up to four queries use a dedicated
///          kernel, whose cost is that of reading the cache: once for four queries, those of grouped heads included.
///          Where there are fewer heads of keys than workers, the keys are split over these. Then the workspace holds
///          results of parts of the keys; the query is that of the longest cache. Bits of o and lse depend neither on
///          the batch nor on the workspace.
/// Packed   Shape.packed, all optional, in the executor's memory. offsets [sequences + 1], not descending: q, k, v and
///          o have batch 1, and sequence s has the positions [offsets[s], offsets[s + 1]) of their axis `length`; it
///          may be empty; chunks begin anew in each sequence. No sequence is longer than `max_length` (0: the length of
///          q): set it, because a GPU starts as much work for each sequence as for one of this length, and the
///          workspace of the backward pass has room for as many. positions [sequences]: of the first query of each;
///          lengths, head_lengths and alibi_slopes then have a row per sequence. slots [sequences]: sequence s uses row
///          slots[s] of the states and of their gradients, which have any number of rows; no two sequences have the
///          same row. Negative: the sequence has no state; then, or without keys_in, it begins where the chunk of its
///          position begins. random_state [2]: seed and offset of dropout, whose counter has the number of the sequence
///          in place of b. Without offsets, sequences are rows of the batch; so a captured graph can replay with other
///          positions. The bits of o, lse, and gradients of k and v are those of a call for each sequence alone
///          (dropout apart, whose numbers differ). Gradients of q and bias may differ by the order of their sums. On
///          the CPU the tables are checked, but not that slots differ; on a GPU wrong ones are undefined behaviour.
/// Dropout  of the weights, by Philox4x32-10 with key `seed` and counter (query's absolute position + offset, j / 4, b
///          heads + h); word j % 4 below 2^32 dropout drops. The backward pass computes the same mask. Give each
///          operation, layer and step its own seed.
/// Aliasing No output may overlap any other argument, except the state in place.
/// Determinism  Results have the same bits from run to run and for any number of threads. On the CPU, o of a sequence
///          processed in two calls has the bits of one call, except for calls of up to four queries.
/// Cost     key_dim + value_dim multiply-adds a valid pair forward, 3 key_dim + 2 value_dim backward (statistics come
///          from the forward pass); on a GPU the forward pass computes the scores again for each 128 (fp32), 64 (fp64)
///          or 256 columns of v, on sm_90a (16 bits) for each 1024. Workspace: what the queries return, more for a
///          larger call; it holds blocks of scores. Backward on sm_90a (16 bits, no state, no options, aligned rows,
///          chunk up to 4096 and, unless there is only one, a multiple of 64): two matrices of the longest chunk in T,
///          16 MB for 2048 positions, for at least one chunk and up to 128 MB of them.
/// Accuracy fp32 on the CPU: exp 1e-7 relative, erf 1.5e-7 absolute. 16 bits on tensor cores, and bf16 on a CPU whose
///          policy has bf16_products: weights and gradients of scores are rounded to T before products (2^-9 relative
///          in bf16), sums are in fp32. On the CPU, subnormal elements then count as 0, and a score must be finite
///          before it is scaled.
/// Range    Scores may be any finite numbers of accumulate_t<T> in both passes, with biases down to its lowest value: a
///          weight is as accurate as its rounded score. A score of -infinity masks its key. A row with a score of
///          +infinity or NaN (for example after overflow) is NaN.
/// Errors   A status. Unless it is success, nothing was written; exception: launch_failed, which may come from a later
///          launch of several. unsupported_device: bf16 and fp16 need up to 163 KB of shared memory a block (compute
///          capability 8.0, 8.7, 9.0, 10.x), fp32 99 KB. Nothing is allocated or thrown.
/// Source   MEGA (arXiv 2209.10655), equations 16 to 18 and its released code; chunks as in MEGA-chunk and TCNCA (arXiv
///          2312.05605).
template <element T, chunked_attention_shape Shape, class Tuning = default_chunked_attention_tuning<T, Shape>>
struct chunked_attention {
  using accumulate = accumulate_t<T>;
  using limits = chunked_attention_limits;

  using forward_args = chunked_attention_forward_args<T>;
  using backward_args = chunked_attention_backward_args<T>;
  static_assert(Shape.causal || !Shape.window, "tcnca::chunked_attention: a window needs a causal shape");
  using rotary_args = chunked_attention_rotary_args<T>;
  using rotary_backward_args = chunked_attention_rotary_backward_args<T>;

  /// Bytes of workspace that let forward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t forward_workspace(Executor e, forward_args const& a) noexcept {
    return has_extents(a) ? dispatch<Executor>::forward_workspace(e, dispatch<Executor>::make_forward_params(a)).all
                          : 0;
  }

  /// o (and lse, and the state after) from q, k, v (and the state before).
  template <class Executor>
  TCNCA_HIDDEN static status forward(Executor e, forward_args const& a, workspace scratch) noexcept {
    argument_check check = check_executor(e);
    check_inputs(check, a);
    extents const x(a);
    check.output("o", a.o, {x.batch, x.heads, x.length, x.value_dim}, 3);
    check.only_if(softmax, "lse", a.lse);
    check.optional_output("lse", a.lse, {x.batch, x.heads, x.length, 2}, 3);
    check.only_if(Shape.causal, "keys_out", a.keys_out);
    check.only_if(Shape.causal, "values_out", a.values_out);
    if (a.keys_out.given() || a.values_out.given()) {
      check.output("keys_out", a.keys_out, {state_rows(a, a.keys_out), x.key_heads, a.chunk, x.key_dim}, 3);
      check.output("values_out", a.values_out, {state_rows(a, a.values_out), x.key_heads, a.chunk, x.value_dim}, 3);
    }
    check_sequences<Executor>(check, a, a.keys_out, a.values_out);
    if (!check.ok()) return check.result();
    using call = dispatch<Executor>;
    auto const params = call::make_forward_params(a);
    check.scratch(scratch, call::forward_workspace(e, params))
        .overlaps({"keys_in", "keys_out", "values_in", "values_out"});
    if (!check.ok() || x.sequences == 0 || x.heads == 0) return check.result();
    return call::forward(e, params, a.keys_out, a.values_out, scratch);
  }

  /// Bytes of workspace that let backward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t backward_workspace(Executor e, backward_args const& a) noexcept {
    return has_extents(a) ? dispatch<Executor>::backward_workspace(e, dispatch<Executor>::make_backward_params(a)).all
                          : 0;
  }

  /// The gradients of a forward pass with the same inputs, those that are present.
  template <class Executor>
  TCNCA_HIDDEN static status backward(Executor e, backward_args const& a, workspace scratch) noexcept {
    argument_check check = check_executor(e);
    check_inputs(check, a);
    extents const x(a);
    if (softmax) {
      check.input("o", a.o, {x.batch, x.heads, x.length, x.value_dim}, 3);
      check.input("lse", a.lse, {x.batch, x.heads, x.length, 2}, 3);
    } else {
      check.only_if(false, "o", a.o).only_if(false, "lse", a.lse);
    }
    check.input("grad_o", a.grad_o, {x.batch, x.heads, x.length, x.value_dim}, 3);
    check.only_if(Shape.causal, "grad_keys_out", a.grad_keys_out);
    check.only_if(Shape.causal, "grad_values_out", a.grad_values_out);
    check.optional_input("grad_keys_out", a.grad_keys_out,
                         {state_rows(a, a.grad_keys_out), x.key_heads, a.chunk, x.key_dim}, 3);
    check.optional_input("grad_values_out", a.grad_values_out,
                         {state_rows(a, a.grad_values_out), x.key_heads, a.chunk, x.value_dim}, 3);
    check.optional_output("grad_q", a.grad_q, {x.batch, x.heads, x.length, x.key_dim}, 3);
    check.optional_output("grad_k", a.grad_k, {x.batch, x.key_heads, x.length, x.key_dim}, 3);
    check.optional_output("grad_v", a.grad_v, {x.batch, x.key_heads, x.length, x.value_dim}, 3);
    check.only_if(Shape.bias, "grad_bias", a.grad_bias);
    check.optional_output("grad_bias", a.grad_bias, {x.heads, bias_length(a.chunk)});
    check.only_if(a.keys_in.given(), "grad_keys_in", a.grad_keys_in);
    check.only_if(a.keys_in.given(), "grad_values_in", a.grad_values_in);
    check.optional_output("grad_keys_in", a.grad_keys_in,
                          {state_rows(a, a.grad_keys_in), x.key_heads, a.chunk, x.key_dim}, 3);
    check.optional_output("grad_values_in", a.grad_values_in,
                          {state_rows(a, a.grad_values_in), x.key_heads, a.chunk, x.value_dim}, 3);
    check_sequences<Executor>(check, a, a.grad_keys_out, a.grad_values_out, a.grad_keys_in, a.grad_values_in);
    if (!check.ok()) return check.result();
    using call = dispatch<Executor>;
    auto const params = call::make_backward_params(a);
    check.scratch(scratch, call::backward_workspace(e, params)).overlaps();
    bool const any = a.grad_q.given() || a.grad_k.given() || a.grad_v.given() || a.grad_bias.given() ||
                     a.grad_keys_in.given() || a.grad_values_in.given();
    if (!check.ok() || x.heads == 0 || !any) return check.result();
    return call::backward(e, params, a.o, scratch);
  }

  /// The table of biases of a rotary form. fp64 inside.
  template <class Executor>
  TCNCA_HIDDEN static status rotary(Executor e, rotary_args const& a) noexcept {
    argument_check check = check_executor(e);
    check_rotary(check, a);
    check.output("bias", a.bias, {a.a.extent[0], bias_length(a.chunk)}).overlaps();
    if (!check.ok() || a.a.extent[0] == 0) return check.result();
    return dispatch<Executor>::rotary(e, a);
  }
  /// The gradients of a and b, those that are present, from that of the table.
  template <class Executor>
  TCNCA_HIDDEN static status rotary_backward(Executor e, rotary_backward_args const& a) noexcept {
    argument_check check = check_executor(e);
    check_rotary(check, a);
    check.input("grad_bias", a.grad_bias, {a.a.extent[0], bias_length(a.chunk)});
    check.optional_output("grad_a", a.grad_a, {a.a.extent[0], a.a.extent[1]});
    check.optional_output("grad_b", a.grad_b, {a.a.extent[0], a.a.extent[1]}).overlaps();
    bool const any = a.grad_a.given() || a.grad_b.given();
    if (!check.ok() || a.a.extent[0] == 0 || !any) return check.result();
    return dispatch<Executor>::rotary_backward(e, a);
  }

 private:
  static constexpr bool softmax = Shape.function == attention_function::softmax;
  static constexpr double max_number = sizeof(accumulate) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;

  template <class Executor>
  using dispatch =
      typename detail::chunked_attention_dispatch_of<Shape.packed>::template type<T, Shape, Tuning, Executor>;

  struct extents {
    index_t batch, sequences, heads, key_heads, length, key_dim, value_dim;
    explicit extents(auto const& a)
        : batch(a.q.extent[0]),
          sequences(table(a).count),
          heads(a.q.extent[1]),
          key_heads(Shape.grouped ? a.k.extent[1] : heads),
          length(a.q.extent[2]),
          key_dim(a.q.extent[3]),
          value_dim(a.v.extent[3]) {}
  };
  static sequence_table table(auto const& a) {
    if (!Shape.packed) return {.count = a.q.extent[0], .max_length = a.q.extent[2]};
    return sequence_table::of(a, a.q.extent[0], a.q.extent[2]);
  }
  static index_t state_rows(auto const& a, auto const& states) { return table(a).state_rows(states); }
  static bool has_extents(auto const& a) {
    extents const x(a);
    return tensor_limits::hold(a.q) && tensor_limits::hold(table(a), a.q) && valid_heads(x) && a.position >= 0 &&
           a.position <= index_t(1) << 62 && a.chunk >= 1 && a.chunk <= limits::chunk &&
           valid_dim(x.key_dim, limits::key_dim_min, limits::key_dim) &&
           valid_dim(x.value_dim, limits::value_dim_min, limits::value_dim);
  }
  static index_t bias_length(index_t chunk) { return detail::saturating_multiply(index_t(2), chunk) - 1; }
  /// Whether every head of keys has the same number of heads of queries.
  static bool valid_heads(extents const& x) {
    return x.key_heads > 0 ? x.heads % x.key_heads == 0 : x.key_heads == 0 && x.heads == 0;
  }
  static bool valid_dim(index_t d, index_t minimum, index_t maximum) {
    return d >= minimum && d <= maximum && d % limits::multiple == 0;
  }

  static void check_inputs(argument_check& check, auto const& a) {
    extents const x(a);
    check.demand(a.chunk >= 1 && a.chunk <= limits::chunk, status_code::invalid_value, "chunk");
    check.demand(a.position >= 0 && a.position <= index_t(1) << 62, status_code::invalid_position, "position");
    check.demand(detail::is_finite(a.scale) && a.scale >= -max_number && a.scale <= max_number,
                 status_code::invalid_value, "scale");
    if (Shape.dropout)
      check.demand(detail::is_finite(a.dropout) && a.dropout >= 0 && a.dropout < 1, status_code::invalid_value,
                   "dropout");
    else check.demand(detail::is_finite(a.dropout) && a.dropout == 0, status_code::unexpected_argument, "dropout");
    check.demand(valid_dim(x.key_dim, limits::key_dim_min, limits::key_dim), status_code::invalid_extent, "q");
    check.input("q", a.q, {x.batch, x.heads, x.length, x.key_dim}, 3);
    check.demand(!Shape.grouped || valid_heads(x), status_code::invalid_extent, "k");
    check.input("k", a.k, {x.batch, x.key_heads, x.length, x.key_dim}, 3);
    check.demand(valid_dim(x.value_dim, limits::value_dim_min, limits::value_dim), status_code::invalid_extent, "v");
    check.input("v", a.v, {x.batch, x.key_heads, x.length, x.value_dim}, 3);
    if (Shape.bias) check.input("bias", a.bias, {x.heads, bias_length(a.chunk)});
    else check.only_if(false, "bias", a.bias);
    if (Shape.alibi) check.input("alibi_slopes", a.alibi_slopes, {x.sequences, x.heads});
    else check.only_if(false, "alibi_slopes", a.alibi_slopes);
    check.optional_input("lengths", a.lengths, {x.sequences});
    if (Shape.head_lengths) check.input("head_lengths", a.head_lengths, {x.sequences, x.heads});
    else check.only_if(false, "head_lengths", a.head_lengths);
    check.demand(Shape.window || a.window == 0, status_code::unexpected_argument, "window");
    check.demand(!Shape.window || a.window >= 1, status_code::invalid_value, "window");
    check.only_if(Shape.causal, "keys_in", a.keys_in);
    check.only_if(Shape.causal, "values_in", a.values_in);
    check.demand(Shape.causal || a.chunk < 1 || a.position % a.chunk == 0, status_code::invalid_position, "position");
    bool const in_chunk = !a.positions.given() && a.chunk >= 1 && a.position % a.chunk != 0;
    if (a.keys_in.given() || a.values_in.given() || in_chunk) {
      check.input("keys_in", a.keys_in, {state_rows(a, a.keys_in), x.key_heads, a.chunk, x.key_dim}, 3);
      check.input("values_in", a.values_in, {state_rows(a, a.values_in), x.key_heads, a.chunk, x.value_dim}, 3);
    }
  }
  /// states: those besides keys_in and values_in.
  template <class Executor>
  static void check_sequences(argument_check& check, auto const& a, auto const&... states) {
    if constexpr (Shape.packed) {
      constexpr bool readable = executor_traits<Executor>::target.is_cpu();
      check.sequences(table(a), "q", a.q, a.max_length, readable, a.keys_in, a.values_in, states...);
      check.optional_input("random_state", a.random_state, {2});
    } else {
      check.only_if(false, "offsets", a.offsets).only_if(false, "slots", a.slots);
      check.only_if(false, "positions", a.positions).only_if(false, "random_state", a.random_state);
      check.demand(a.max_length == 0, status_code::unexpected_argument, "max_length");
    }
  }
  static void check_rotary(argument_check& check, auto const& a) {
    index_t const heads = a.a.extent[0], dim = a.a.extent[1];
    check.demand(a.chunk >= 1 && a.chunk <= limits::chunk, status_code::invalid_value, "chunk");
    check.demand(dim >= 2 && dim % 2 == 0, status_code::invalid_extent, "a");
    check.input("a", a.a, {heads, dim}).input("b", a.b, {heads, dim});
  }
};

}  // namespace tcnca
