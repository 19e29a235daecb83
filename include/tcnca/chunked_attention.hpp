// The operation chunked_attention: attention within chunks of a sequence, for values much wider than keys.
#pragma once
#include "chunked_attention/dispatch.hpp"
#include "core/check.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Attention within chunks of a sequence (chunked_attention_shape says which), forward and backward, without storing a
/// matrix of scores.
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
/// Types    T for q, k, v, o and their gradients and states; accumulate_t<T> for biases, statistics, and the gradients
///          of biases and states.
/// State    keys, values: [batch, heads, chunk, key_dim | value_dim]; absolute position p in slot p mod chunk. Causal
///          attention only. The positions of the first chunk before `position` are read from keys_in, values_in. If the
///          last chunk is incomplete, its positions are written to keys_out, values_out, which may be the same memory
///          (then the cache is appended to); other slots are not written. Calls of up to four queries use a dedicated
///          kernel, whose cost is that of reading the cache.
/// Dropout  of the weights, by Philox4x32-10 with key `seed` and counter (query's absolute position + offset, j / 4, b
///          heads + h); word j % 4 below 2^32 dropout drops. The backward pass computes the same mask. Give each
///          operation, layer and step its own seed.
/// Aliasing No output may overlap any other argument, except the state in place.
/// Determinism  Results have the same bits from run to run and for any number of threads. On the CPU, o of a sequence
///          processed in two calls has the bits of one call, except for calls of up to four queries.
/// Cost     key_dim + value_dim multiply-adds a valid pair forward, 3 key_dim + 2 value_dim backward (statistics come
///          from the forward pass); on a GPU the forward pass computes the scores again for each 128 (fp32, fp64) or
///          256 columns of v. Workspace: what the queries return, more for a larger call; it holds blocks of scores,
///          never chunk x chunk of them.
/// Accuracy fp32 on the CPU: exp 1e-7 relative, erf 1.5e-7 absolute.
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

  struct forward_args {
    tensor_view<T const, 4> q = {}, k = {}, v = {};
    tensor_view<accumulate const, 2> bias = {};  ///< if Shape.bias
    tensor_view<index_t const, 1> lengths = {};  ///< optional: all keys are valid
    tensor_view<T const, 4> keys_in = {};        ///< needed where position is not a multiple of chunk
    tensor_view<T const, 4> values_in = {};
    tensor_view<T, 4> o = {};
    tensor_view<accumulate, 4> lse = {};  ///< softmax, optional: what the backward pass needs
    tensor_view<T, 4> keys_out = {};      ///< optional
    tensor_view<T, 4> values_out = {};
    index_t chunk = 0;     ///< 1 to 16384
    index_t position = 0;  ///< absolute position of the first query
    double scale = 0;      ///< 0: the default; must be finite in accumulate_t<T>
    double dropout = 0;    ///< if Shape.dropout: probability, below 1
    uint64 seed = 0, offset = 0;
  };

  /// The inputs are those of the forward pass, o and lse (softmax) its results; gradients are overwritten.
  struct backward_args {
    tensor_view<T const, 4> q = {}, k = {}, v = {};
    tensor_view<accumulate const, 2> bias = {};
    tensor_view<index_t const, 1> lengths = {};
    tensor_view<T const, 4> keys_in = {};
    tensor_view<T const, 4> values_in = {};
    tensor_view<T const, 4> o = {};
    tensor_view<accumulate const, 4> lse = {};
    tensor_view<T const, 4> grad_o = {};
    tensor_view<accumulate const, 4> grad_keys_out =
        {};  ///< optional, zero if absent; slots that forward writes are read
    tensor_view<accumulate const, 4> grad_values_out = {};
    tensor_view<T, 4> grad_q = {}, grad_k = {}, grad_v = {};
    tensor_view<accumulate, 2> grad_bias = {};
    tensor_view<accumulate, 4> grad_keys_in = {};  ///< optional; slots that forward reads are written
    tensor_view<accumulate, 4> grad_values_in = {};
    index_t chunk = 0;
    index_t position = 0;
    double scale = 0;
    double dropout = 0;
    uint64 seed = 0, offset = 0;
  };

  /// a, b: [heads, dim], dim even, halves a1 | a2; bias: [heads, 2 chunk - 1], the table of MEGA's rotary relative bias
  /// (content-free):
  /// bias[chunk - 1 + j - i] = sum_k (a1k b1k + a2k b2k) cos((i - j) theta_k) + (a1k b2k - a2k b1k) sin((i - j)
  /// theta_k), theta_k = 10000^(-2k / dim).
  struct rotary_args {
    tensor_view<accumulate const, 2> a = {};
    tensor_view<accumulate const, 2> b = {};
    tensor_view<accumulate, 2> bias = {};
    index_t chunk = 0;
  };
  struct rotary_backward_args {
    tensor_view<accumulate const, 2> a = {};
    tensor_view<accumulate const, 2> b = {};
    tensor_view<accumulate const, 2> grad_bias = {};
    tensor_view<accumulate, 2> grad_a = {};
    tensor_view<accumulate, 2> grad_b = {};
    index_t chunk = 0;
  };

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
      check.output("keys_out", a.keys_out, {x.batch, x.heads, a.chunk, x.key_dim}, 3);
      check.output("values_out", a.values_out, {x.batch, x.heads, a.chunk, x.value_dim}, 3);
    }
    if (!check.ok()) return check.result();
    using call = dispatch<Executor>;
    auto const params = call::make_forward_params(a);
    check.scratch(scratch, call::forward_workspace(e, params))
        .overlaps({"keys_in", "keys_out", "values_in", "values_out"});
    if (!check.ok() || x.batch == 0 || x.heads == 0) return check.result();
    return call::forward(e, params, a.keys_out, a.values_out, scratch);
  }

  /// Bytes of workspace that let backward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t backward_workspace(Executor e, backward_args const& a) noexcept {
    return has_extents(a) ? dispatch<Executor>::backward_workspace(e, dispatch<Executor>::make_backward_params(a)).all
                          : 0;
  }

  /// The gradients of a forward pass with the same inputs.
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
    check.optional_input("grad_keys_out", a.grad_keys_out, {x.batch, x.heads, a.chunk, x.key_dim}, 3);
    check.optional_input("grad_values_out", a.grad_values_out, {x.batch, x.heads, a.chunk, x.value_dim}, 3);
    check.output("grad_q", a.grad_q, {x.batch, x.heads, x.length, x.key_dim}, 3);
    check.output("grad_k", a.grad_k, {x.batch, x.heads, x.length, x.key_dim}, 3);
    check.output("grad_v", a.grad_v, {x.batch, x.heads, x.length, x.value_dim}, 3);
    if (Shape.bias) check.output("grad_bias", a.grad_bias, {x.heads, bias_length(a.chunk)});
    else check.only_if(false, "grad_bias", a.grad_bias);
    check.only_if(a.keys_in.given(), "grad_keys_in", a.grad_keys_in);
    check.only_if(a.keys_in.given(), "grad_values_in", a.grad_values_in);
    check.optional_output("grad_keys_in", a.grad_keys_in, {x.batch, x.heads, a.chunk, x.key_dim}, 3);
    check.optional_output("grad_values_in", a.grad_values_in, {x.batch, x.heads, a.chunk, x.value_dim}, 3);
    if (!check.ok()) return check.result();
    using call = dispatch<Executor>;
    auto const params = call::make_backward_params(a);
    check.scratch(scratch, call::backward_workspace(e, params)).overlaps();
    if (!check.ok() || x.heads == 0) return check.result();
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
  /// The gradients of a and b from that of the table.
  template <class Executor>
  TCNCA_HIDDEN static status rotary_backward(Executor e, rotary_backward_args const& a) noexcept {
    argument_check check = check_executor(e);
    check_rotary(check, a);
    check.input("grad_bias", a.grad_bias, {a.a.extent[0], bias_length(a.chunk)});
    check.output("grad_a", a.grad_a, {a.a.extent[0], a.a.extent[1]});
    check.output("grad_b", a.grad_b, {a.a.extent[0], a.a.extent[1]}).overlaps();
    if (!check.ok() || a.a.extent[0] == 0) return check.result();
    return dispatch<Executor>::rotary_backward(e, a);
  }

 private:
  static constexpr bool softmax = Shape.function == attention_function::softmax;
  static constexpr double max_number = sizeof(accumulate) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;

  template <class Executor>
  using dispatch = detail::chunked_attention_dispatch<T, Shape, Tuning, Executor>;

  struct extents {
    index_t batch, heads, length, key_dim, value_dim;
    explicit extents(auto const& a)
        : batch(a.q.extent[0]),
          heads(a.q.extent[1]),
          length(a.q.extent[2]),
          key_dim(a.q.extent[3]),
          value_dim(a.v.extent[3]) {}
  };
  static bool has_extents(auto const& a) {
    extents const x(a);
    return tensor_limits::hold(a.q) && a.position >= 0 && a.position <= index_t(1) << 62 && a.chunk >= 1 &&
           a.chunk <= limits::chunk && valid_dim(x.key_dim, limits::key_dim_min, limits::key_dim) &&
           valid_dim(x.value_dim, limits::value_dim_min, limits::value_dim);
  }
  static index_t bias_length(index_t chunk) { return detail::saturating_multiply(index_t(2), chunk) - 1; }
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
    check.input("k", a.k, {x.batch, x.heads, x.length, x.key_dim}, 3);
    check.demand(valid_dim(x.value_dim, limits::value_dim_min, limits::value_dim), status_code::invalid_extent, "v");
    check.input("v", a.v, {x.batch, x.heads, x.length, x.value_dim}, 3);
    if (Shape.bias) check.input("bias", a.bias, {x.heads, bias_length(a.chunk)});
    else check.only_if(false, "bias", a.bias);
    check.optional_input("lengths", a.lengths, {x.batch});
    check.only_if(Shape.causal, "keys_in", a.keys_in);
    check.only_if(Shape.causal, "values_in", a.values_in);
    check.demand(Shape.causal || a.chunk < 1 || a.position % a.chunk == 0, status_code::invalid_position, "position");
    if (a.keys_in.given() || a.values_in.given() || (a.chunk >= 1 && a.position % a.chunk != 0)) {
      check.input("keys_in", a.keys_in, {x.batch, x.heads, a.chunk, x.key_dim}, 3);
      check.input("values_in", a.values_in, {x.batch, x.heads, a.chunk, x.value_dim}, 3);
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
