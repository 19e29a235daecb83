// The operation chunked_attention: attention within chunks of a sequence, for values much wider than keys.
#pragma once
#include "chunked_attention/dispatch.hpp"
#include "chunked_attention/tuning.hpp"
#include "core/check.hpp"
#include "launch/alignment.hpp"
#include "launch/launch.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Attention within chunks of a sequence (chunked_attention_shape says which), forward and backward; no matrix of scores is stored.
///
/// Shapes   q, k: [batch, heads, length, key_dim]; v, o: [batch, heads, length, value_dim]; key_dim 16 to 256, value_dim 16 to 2048, multiples
///          of 8. Stride 1 along the last axis, any non-negative strides else (0 broadcasts an input, as keys shared by heads).
///          bias: [heads, 2 chunk - 1], added to score[i,j] is bias[chunk - 1 + j - i]. lengths: [batch].
///          lse: [batch, heads, length, 2]: the maximum of a query's scores, and log of the sum of exp(score - maximum); -infinity
///          and 0 for a query without a valid key. They are kept apart because rounding would lose the second next to a large first.
/// Scores   scale q . k + bias. scale: key_dim^-1/2 (softmax), 1 / n (laplace, relu2) with n the number of the query's valid keys, at least 1;
///          or the caller's. Valid are the keys of the query's chunk at absolute positions below lengths[b] and, if causal, not after the query.
///          A query without a valid key, or (softmax) whose scores are all -infinity, gives 0. What is masked is left out, not multiplied by 0.
/// Types    T for q, k, v, o and their gradients and states; accumulate_t<T> for biases, statistics, and the gradients of biases and states.
/// State    keys, values: [batch, heads, chunk, key_dim | value_dim]; absolute position p in slot p mod chunk. What is before `position` in its
///          chunk is read from keys_in, values_in; what the last chunk holds, if it is not complete, goes to keys_out, values_out, which may be
///          the same memory (then a cache that is appended to); other slots are left alone. Causal attention only. Calls of up to four queries
///          take a way of their own, whose cost is that of reading the cache.
/// Dropout  of the weights, by Philox4x32-10 with key `seed` and counter (query's absolute position + offset, j / 4, b heads + h); word j % 4 below
///          2^32 dropout drops. The backward pass computes the same mask again. Give each operation, layer and step a seed of its own.
/// Aliasing No output may overlap anything else, but for the state in place.
/// Determinism  Every result is the same from run to run and for any number of threads. o of a sequence cut in two is bitwise that of the whole
///          on the CPU, but for calls of up to four queries.
/// Cost     key_dim + value_dim multiply-adds a valid pair forward, 3 key_dim + 2 value_dim backward (statistics come from the forward pass); on a
///          GPU forward computes scores again for each 128 (fp32, fp64) or 256 columns of v. Workspace: what the queries say, more for a larger
///          call; it holds blocks of scores, never chunk x chunk of them.
/// Accuracy fp32 on the CPU: exp 1e-7 relative, erf 1.5e-7 absolute.
/// Range    Scores may be any finite numbers of accumulate_t<T> in both passes, with biases down to its lowest value: a weight is as accurate as
///          its rounded score. A score of -infinity masks its key. A row with a score of +infinity or NaN (after an overflow, say) is NaN.
/// Errors   A status; on anything but success nothing was written (but for launch_failed, which may come of a later launch of several).
///          unsupported_device: bf16 and fp16 need up to 163 KB of shared memory a block (compute capability 8.0, 8.7, 9.0, 10.x), fp32 99 KB.
///          Nothing is allocated, nothing thrown.
/// Source   MEGA (arXiv 2209.10655), equations 16 to 18 and its released code; chunks as in MEGA-chunk and TCNCA (arXiv 2312.05605).
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
        {};  ///< optional; zero where absent. Slots that forward writes are read
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

  /// a, b: [heads, dim], dim even, halves a1 | a2; bias: [heads, 2 chunk - 1], the table of MEGA's rotary relative bias (content-free):
  /// bias[chunk - 1 + j - i] = sum_k (a1k b1k + a2k b2k) cos((i - j) theta_k) + (a1k b2k - a2k b1k) sin((i - j) theta_k), theta_k = 10000^(-2k / dim).
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
    return has_extents(a) ? forward_bytes(e, a).all : 0;
  }

  /// o (and lse, and the state after) from q, k, v (and the state before).
  template <class Executor>
  TCNCA_HIDDEN static status forward(Executor e, forward_args const& a, workspace scratch) noexcept {
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
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
    check.scratch(scratch, check.ok() ? forward_bytes(e, a) : workspace_bytes{})
        .overlaps({"keys_in", "keys_out", "values_in", "values_out"});
    if (!check.ok() || x.batch == 0 || x.heads == 0) return check.result();

    auto const p = forward_params<Executor>(a);
    using traits = executor_traits<Executor>;
    if (use_step_kernel(a)) {
      using agent = typename tuned<Executor>::step_agent;
      if (status const s = traits::template launch<agent>(e, p, agent::items(p), step_memory<Executor>(p), scratch);
          !s.ok())
        return s;
    } else if (x.length > 0) {
      if (status const s = launch_forward(e, p, scratch); !s.ok()) return s;
    }
    if (!a.keys_out.present()) return {};
    using agent = typename tuned<Executor>::state_agent;
    chunked_attention_state_params<T> const keys{a.k, a.keys_in, a.keys_out, a.chunk, a.position};
    chunked_attention_state_params<T> const values{a.v, a.values_in, a.values_out, a.chunk, a.position};
    if (status const s = traits::template launch<agent>(e, keys, agent::items(keys), {}, {}); !s.ok()) return s;
    return traits::template launch<agent>(e, values, agent::items(values), {}, {});
  }

  /// Bytes of workspace that let backward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t backward_workspace(Executor e, backward_args const& a) noexcept {
    return has_extents(a) ? backward_bytes(e, a).all : 0;
  }

  /// The gradients of a forward pass with the same inputs.
  template <class Executor>
  TCNCA_HIDDEN static status backward(Executor e, backward_args const& a, workspace scratch) noexcept {
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
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
    if (Shape.bias) check.output("grad_bias", a.grad_bias, {x.heads, table(a.chunk)});
    else check.only_if(false, "grad_bias", a.grad_bias);
    check.only_if(a.keys_in.given(), "grad_keys_in", a.grad_keys_in);
    check.only_if(a.keys_in.given(), "grad_values_in", a.grad_values_in);
    check.optional_output("grad_keys_in", a.grad_keys_in, {x.batch, x.heads, a.chunk, x.key_dim}, 3);
    check.optional_output("grad_values_in", a.grad_values_in, {x.batch, x.heads, a.chunk, x.value_dim}, 3);
    check.scratch(scratch, check.ok() ? backward_bytes(e, a) : workspace_bytes{}).overlaps();
    if (!check.ok() || x.heads == 0) return check.result();

    auto p = backward_params<Executor>(a, static_cast<char*>(scratch.data));
    using traits = executor_traits<Executor>;
    using delta = typename tuned<Executor>::delta_agent;
    using agent = typename tuned<Executor>::backward_agent;
    using sums = typename tuned<Executor>::reduce_agent;
    if constexpr (softmax) {
      chunked_attention_delta_params<T> const d{a.o, a.grad_o, p.delta, p.in.vectorizable};
      if (status const s = traits::template launch<delta>(e, d, delta::items(d), {}, {}); !s.ok()) return s;
    }
    if constexpr (tuned<Executor>::backward_tensor_cores) {
      return launch_on_tensor_cores(e, p, a.grad_bias);
    } else {
      size_t const end = sums_offsets<Executor>(p).end;
      workspace const rest{static_cast<char*>(scratch.data) + end, scratch.bytes - end};
      if (status const s = traits::template launch<agent>(e, p, agent::items(p), memory(p.plan), rest); !s.ok())
        return s;
      typename sums::params_type const r{p, a.grad_bias};
      return traits::template launch<sums>(e, r, sums::items(r), {}, {});
    }
  }

  /// The table of biases of a rotary form. fp64 inside.
  template <class Executor>
  TCNCA_HIDDEN static status rotary(Executor e, rotary_args const& a) noexcept {
    argument_check check;
    check_rotary(check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor), a);
    check.output("bias", a.bias, {a.a.extent[0], table(a.chunk)}).overlaps();
    if (!check.ok() || a.a.extent[0] == 0) return check.result();
    using agent = typename tuned<Executor>::rotary_agent;
    typename agent::params_type const p{a.a, a.b, a.bias, {}, {}, {}, a.chunk};
    return executor_traits<Executor>::template launch<agent>(e, p, agent::items(p), {}, {});
  }
  /// The gradients of a and b from that of the table.
  template <class Executor>
  TCNCA_HIDDEN static status rotary_backward(Executor e, rotary_backward_args const& a) noexcept {
    argument_check check;
    check_rotary(check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor), a);
    check.input("grad_bias", a.grad_bias, {a.a.extent[0], table(a.chunk)});
    check.output("grad_a", a.grad_a, {a.a.extent[0], a.a.extent[1]});
    check.output("grad_b", a.grad_b, {a.a.extent[0], a.a.extent[1]}).overlaps();
    if (!check.ok() || a.a.extent[0] == 0) return check.result();
    using agent = typename tuned<Executor>::rotary_backward_agent;
    typename agent::params_type const p{a.a, a.b, {}, a.grad_bias, a.grad_a, a.grad_b, a.chunk};
    return executor_traits<Executor>::template launch<agent>(e, p, agent::items(p), {}, {});
  }

 private:
  static constexpr bool softmax = Shape.function == attention_function::softmax;
  static constexpr double greatest = sizeof(accumulate) == 4 ? 0x1.fffffep127 : 0x1.fffffffffffffp1023;

  template <class Executor>
  using tuned = detail::tuned_chunked_attention<T, Shape, Tuning, Executor>;

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
  static index_t table(index_t chunk) { return detail::saturating_multiply(index_t(2), chunk) - 1; }
  static bool valid_dim(index_t d, index_t least, index_t most) {
    return d >= least && d <= most && d % limits::multiple == 0;
  }

  static void check_inputs(argument_check& check, auto const& a) {
    extents const x(a);
    check.demand(a.chunk >= 1 && a.chunk <= limits::chunk, status_code::invalid_value, "chunk");
    check.demand(a.position >= 0 && a.position <= index_t(1) << 62, status_code::invalid_position, "position");
    check.demand(detail::is_finite(a.scale) && a.scale >= -greatest && a.scale <= greatest, status_code::invalid_value,
                 "scale");
    if (Shape.dropout)
      check.demand(detail::is_finite(a.dropout) && a.dropout >= 0 && a.dropout < 1, status_code::invalid_value,
                   "dropout");
    else check.demand(detail::is_finite(a.dropout) && a.dropout == 0, status_code::unexpected_argument, "dropout");
    check.demand(valid_dim(x.key_dim, limits::key_dim_min, limits::key_dim), status_code::invalid_extent, "q");
    check.input("q", a.q, {x.batch, x.heads, x.length, x.key_dim}, 3);
    check.input("k", a.k, {x.batch, x.heads, x.length, x.key_dim}, 3);
    check.demand(valid_dim(x.value_dim, limits::value_dim_min, limits::value_dim), status_code::invalid_extent, "v");
    check.input("v", a.v, {x.batch, x.heads, x.length, x.value_dim}, 3);
    if (Shape.bias) check.input("bias", a.bias, {x.heads, table(a.chunk)});
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

  template <class Executor>
  static chunked_attention_inputs<T> inputs(auto const& a) {
    chunked_attention_inputs<T> in{a.q, a.k, a.v, a.bias, a.lengths, a.keys_in, a.values_in, a.chunk, a.position};
    in.scale = accumulate(softmax && a.scale == 0 ? 1 / std::sqrt(double(a.q.extent[3])) : a.scale);
    in.by_count = !softmax && a.scale == 0;
    if (a.dropout > 0 && a.dropout < 1) in.drop_threshold = uint32(a.dropout * 4294967296.0);
    in.keep_scale = accumulate(1 / (1 - a.dropout));
    in.seed = a.seed, in.offset = a.offset;
    return in;
  }
  template <class Executor>
  static auto forward_params(forward_args const& a) {
    using agent = typename tuned<Executor>::forward_agent;
    chunked_attention_forward_params<T> p{inputs<Executor>(a), a.o, a.lse};
    p.in.vectorizable = rows_vectorizable<Executor>(agent::W, a.q, a.k, a.v, a.keys_in, a.values_in, a.o);
    p.plan = agent::plan_for(int(a.q.extent[3]), int(a.v.extent[3]));
    return p;
  }
  template <class Executor>
  TCNCA_HIDDEN static status launch_forward(Executor e, auto const& p, workspace scratch) {
    using traits = executor_traits<Executor>;
    using params = chunked_attention_forward_params<T>;
    if constexpr (tuned<Executor>::clustered) {
      using agent = typename tuned<Executor>::cluster_agent;
      if (traits::template supports<agent, params>(e))
        return traits::template launch<agent>(e, p, agent::items(p), {agent::shared_memory_bytes(p.in.key_dim()), 0},
                                              scratch);
    }
    using agent = typename tuned<Executor>::forward_agent;
    return traits::template launch<agent>(e, p, agent::items(p), memory(p.plan), scratch);
  }
  template <class Executor>
  static auto backward_params(backward_args const& a, char* scratch) {
    using agent = typename tuned<Executor>::backward_agent;
    chunked_attention_backward_params<T> p{inputs<Executor>(a), a.lse,           a.grad_o, a.grad_keys_out,
                                           a.grad_values_out,   a.grad_q,        a.grad_k, a.grad_v,
                                           a.grad_keys_in,      a.grad_values_in};
    constexpr int width = tuned<Executor>::backward_tensor_cores ? swizzled_rows::vector_elements : agent::W;
    p.in.vectorizable =
        rows_vectorizable<Executor>(width, a.q, a.k, a.v, a.keys_in, a.values_in, a.o, a.grad_o, a.grad_keys_out,
                                    a.grad_values_out, a.grad_q, a.grad_k, a.grad_v, a.grad_keys_in, a.grad_values_in);
    if constexpr (!tuned<Executor>::backward_tensor_cores) {
      p.plan = agent::plan_for(int(a.q.extent[3]), int(a.v.extent[3]), p.in.rows(),
                               a.q.extent[0] * a.q.extent[1] * p.in.chunks());
    }
    if (!scratch) return p;
    sums_offsets<Executor> const at(p);
    p.delta = reinterpret_cast<accumulate*>(scratch + at.delta);
    p.bias_sums = reinterpret_cast<accumulate*>(scratch + at.bias);
    p.query_sums = reinterpret_cast<accumulate*>(scratch + at.query);
    return p;
  }

  /// Where the sums that items leave stand in the workspace.
  template <class Executor>
  struct sums_offsets {
    size_t delta = 0, bias = 0, query = 0, end = 0;
    explicit sums_offsets(auto const& p) {
      auto const bytes = [](index_t n) { return detail::workspace_part(size_t(n), sizeof(accumulate)); };
      using agent = typename tuned<Executor>::backward_agent;
      index_t const heads = p.in.q.extent[0] * p.in.heads(), chunks = heads * p.in.chunks();
      bias = query = delta + (softmax ? bytes(heads * p.in.q.extent[2]) : 0);
      if constexpr (tuned<Executor>::backward_tensor_cores) {
        if (Shape.bias)
          query = detail::saturating_add(query, bytes(tuned<Executor>::grad_queries_agent::bias_elements(p)));
        end = query;
      } else {
        if (Shape.bias)
          query = detail::saturating_add(
              query, bytes(agent::reserved_items(p.in.key_dim(), p.in.rows(), chunks) * (2 * p.in.rows() - 1)));
        end = detail::saturating_add(query, bytes(agent::reserved_queries(p.in.key_dim(), p.in.rows(), chunks) *
                                                  p.in.rows() * p.plan.query_row));
      }
    }
  };
  template <class Executor>
  static status launch_on_tensor_cores(Executor e, auto const& p, tensor_view<accumulate, 2> const& grad_bias) {
    using agents = tuned<Executor>;
    auto const launch = [&]<class Agent>(Agent*) {
      return executor_traits<Executor>::template launch<Agent>(e, p, Agent::items(p),
                                                               {Agent::shared_memory_bytes(p.in.key_dim()), 0}, {});
    };
    if (status const s = launch(static_cast<typename agents::grad_values_agent*>(nullptr)); !s.ok()) return s;
    if (status const s = launch(static_cast<typename agents::grad_keys_agent*>(nullptr)); !s.ok()) return s;
    if (status const s = launch(static_cast<typename agents::grad_queries_agent*>(nullptr)); !s.ok()) return s;
    using sums = typename agents::grad_biases_agent;
    typename sums::params_type const r{p, grad_bias};
    return executor_traits<Executor>::template launch<sums>(e, r, sums::items(r), {}, {});
  }
  static group_memory memory(auto const& plan) {
    return {plan.shared_memory * sizeof(accumulate), plan.global_scratch * sizeof(accumulate)};
  }

  static constexpr index_t step_limit = detail::chunked_attention_step_limit;
  static bool use_step_kernel(forward_args const& a) {
    return Shape.causal && a.q.extent[2] > 0 && a.q.extent[2] <= step_limit;
  }
  template <class Executor>
  static group_memory step_memory(auto const& p) {
    return {tuned<Executor>::step_agent::shared_memory_elements(p.in.chunk) * sizeof(accumulate), 0};
  }
  template <class Executor>
  static workspace_bytes forward_bytes(Executor e, forward_args const& a) {
    auto const p = forward_params<Executor>(a);
    if (use_step_kernel(a)) return workspace_for<typename tuned<Executor>::step_agent>(e, p, step_memory<Executor>(p));
    return workspace_for<typename tuned<Executor>::forward_agent>(e, p, memory(p.plan));
  }
  template <class Executor>
  static workspace_bytes backward_bytes(Executor e, backward_args const& a) {
    auto const p = backward_params<Executor>(a, nullptr);
    size_t const sums = sums_offsets<Executor>(p).end;
    if constexpr (tuned<Executor>::backward_tensor_cores) {
      return {sums, sums};
    } else {
      return workspace_for<typename tuned<Executor>::backward_agent>(e, p, memory(p.plan), sums);
    }
  }
};

}  // namespace tcnca
