// The operation gated_fusion: the element-wise parts of a TCNCA layer, each one pass over memory.
#pragma once
#include <initializer_list>

#include "core/check.hpp"
#include "gated_fusion/reduce.hpp"
#include "gated_fusion/tuning.hpp"
#include "launch/alignment.hpp"
#include "launch/launch.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The gates around the matrix products of a TCNCA layer (gated_fusion_shape says which), forward and backward:
///   mix     q = silu(z) gq + mq,  k = silu(z) gk + mk        after the product with W_mx, whose columns u | z | r | hx are read where they stand
///   reset   y = o silu(r)                                    before the product with W_h
///   update  y = x + sigmoid(u) (keep silu(hx + h) - x)       after it: h is that product
/// What a pass needs of an activation it computes from the pre-activation again; none is stored.
///
/// Shapes   z, q, k: [batch, length, key_dim]; o, r: [batch, length, value_dim]; x, u, hx, h, y: [batch, length, channels]; gq, mq, gk, mk: [key_dim].
///          Stride 1 along the last axis, any non-negative strides else: slices of one product are views. Extents of 0 to 2^28 columns; on a GPU
///          mix_backward takes 14000.
/// Types    T; accumulate_t<T> for gq, mq, gk, mk and their gradients. Arithmetic in accumulate_t<T>.
/// Dropout  of the candidate, by Philox4x32-10 with key `seed` and counter (position + offset, column / 4, batch); word column % 4 below
///          2^32 dropout drops, the others are divided by 1 - dropout. The backward pass computes the same mask again. Give each operation, layer
///          and step a seed of its own.
/// Aliasing y may be the very memory of o, or of x or h; grad_o or grad_x that of grad_y; nothing else may overlap an output.
/// Determinism  Every result is the same from run to run and for any number of threads; gradients of gq, mq, gk, mk are summed over rows in an
///          order that depends on the extents only.
/// Cost     one access an element of each tensor: forward 5 tensors (update), 3 (reset, mix); backward 9, 5, 4. Workspace: mix_backward only,
///          about 1000 x 4 key_dim numbers; above a million rows, 4 key_dim numbers for every 1024 rows.
/// Errors   A status; on anything but success nothing was written. Nothing is allocated, nothing thrown.
/// Source   MEGA (arXiv 2209.10655), equations 5 to 15 and its released code; TCNCA (arXiv 2312.05605) has the same gates.
/// The arithmetic is public: block/gate.hpp, for epilogues of matrix products.
template <element T, gated_fusion_shape Shape, class Tuning = default_gated_fusion_tuning<T>>
struct gated_fusion {
  using accumulate = accumulate_t<T>;
  using input = tensor_view<T const, 3>;
  using output = tensor_view<T, 3>;

  struct mix_args {
    input z = {};
    tensor_view<accumulate const, 1> gq = {}, mq = {}, gk = {}, mk = {};
    output q = {}, k = {};
  };
  struct mix_backward_args {
    input z = {};
    tensor_view<accumulate const, 1> gq = {}, gk = {};
    input grad_q = {}, grad_k = {};
    output grad_z = {};
    tensor_view<accumulate, 1> grad_gq = {}, grad_mq = {}, grad_gk = {}, grad_mk = {};
  };
  struct reset_args {
    input o = {}, r = {};
    output y = {};
  };
  struct reset_backward_args {
    input o = {}, r = {}, grad_y = {};
    output grad_o = {}, grad_r = {};
  };
  struct update_args {
    input x = {};
    input u = {};   ///< if Shape.update_gate
    input hx = {};  ///< if Shape.mixer_path
    input h = {};
    output y = {};
    double dropout = 0;  ///< if Shape.dropout: probability, below 1
    uint64 seed = 0, offset = 0;
  };
  /// grad_hx has the values of grad_h: it is the slice for the first product's gradient.
  struct update_backward_args {
    input x = {};  ///< if Shape.update_gate
    input u = {}, hx = {}, h = {}, grad_y = {};
    output grad_x = {}, grad_u = {}, grad_hx = {}, grad_h = {};
    double dropout = 0;
    uint64 seed = 0, offset = 0;
  };

  /// q and k from z.
  template <class Executor>
  TCNCA_HIDDEN static status mix(Executor e, mix_args const& a) noexcept {
    argument_check check = begin(e);
    auto const [batch, length, columns] = extents(a.z);
    rows(check, "z", a.z, a.z);
    parameters(check, "gq", a.gq, columns), parameters(check, "mq", a.mq, columns);
    parameters(check, "gk", a.gk, columns), parameters(check, "mk", a.mk, columns);
    result(check, "q", a.q, a.z), result(check, "k", a.k, a.z);
    check.overlaps();
    if (!check.ok()) return check.result();
    using agent = mix_agent<group<Executor>, T, policy<Executor>>;
    mix_params<T> const p{a.z, a.gq, a.mq, a.gk, a.mk, a.q, a.k, access<Executor>({a.z}, {a.q, a.k})};
    return launch<agent>(e, p, batch * length * columns);
  }

  /// Bytes of workspace that let mix_backward run on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t mix_backward_workspace(Executor e, mix_backward_args const& a) noexcept {
    return tensor_limits::hold(a.z) && a.z.extent[2] <= most_columns ? mix_backward_bytes(e, a).all : 0;
  }
  /// All gradients of mix; each is overwritten.
  template <class Executor>
  TCNCA_HIDDEN static status mix_backward(Executor e, mix_backward_args const& a, workspace scratch) noexcept {
    argument_check check = begin(e);
    auto const [batch, length, columns] = extents(a.z);
    rows(check, "z", a.z, a.z);
    parameters(check, "gq", a.gq, columns), parameters(check, "gk", a.gk, columns);
    rows(check, "grad_q", a.grad_q, a.z), rows(check, "grad_k", a.grad_k, a.z);
    result(check, "grad_z", a.grad_z, a.z);
    check.output("grad_gq", a.grad_gq, {columns}).output("grad_mq", a.grad_mq, {columns});
    check.output("grad_gk", a.grad_gk, {columns}).output("grad_mk", a.grad_mk, {columns});
    check.scratch(scratch, check.ok() ? mix_backward_bytes(e, a) : workspace_bytes{}).overlaps();
    if (!check.ok() || columns == 0) return check.result();
    using traits = executor_traits<Executor>;
    using agent = mix_backward_agent<group<Executor>, T, policy<Executor>>;
    using reduce_agent = mix_reduce_agent<group<Executor>, T>;
    auto* const sums = static_cast<accumulate*>(scratch.data);
    mix_backward_params<T> const p{a.z,      a.gq,     a.gk, a.grad_q,
                                   a.grad_k, a.grad_z, sums, access<Executor>({a.z, a.grad_q, a.grad_k}, {a.grad_z})};
    workspace const rest{static_cast<char*>(scratch.data) + sums_bytes<Executor>(a),
                         scratch.bytes - sums_bytes<Executor>(a)};
    if (status const s = traits::template launch<agent>(e, p, agent::items(p), mix_memory<Executor>(columns), rest);
        !s.ok())
      return s;
    typename reduce_agent::params_type const r{sums, agent::items(p), a.grad_gq, a.grad_mq, a.grad_gk, a.grad_mk};
    return traits::template launch<reduce_agent>(e, r, reduce_agent::items(r), {}, {});
  }

  /// y from o and r.
  template <class Executor>
  TCNCA_HIDDEN static status reset(Executor e, reset_args const& a) noexcept {
    static_assert(Shape.reset_gate, "tcnca::gated_fusion: this shape has no reset gate");
    argument_check check = begin(e);
    rows(check, "o", a.o, a.o), rows(check, "r", a.r, a.o);
    result(check, "y", a.y, a.o);
    check.overlaps({"o", "y"});
    if (!check.ok()) return check.result();
    using agent = reset_agent<group<Executor>, T, policy<Executor>, false>;
    reset_params<T> const p{a.o, a.r, {}, a.y, {}, {}, access<Executor>({a.o, a.r}, {a.y})};
    return launch<agent>(e, p, a.o.count());
  }
  /// All gradients of reset; each is overwritten.
  template <class Executor>
  TCNCA_HIDDEN static status reset_backward(Executor e, reset_backward_args const& a) noexcept {
    static_assert(Shape.reset_gate, "tcnca::gated_fusion: this shape has no reset gate");
    argument_check check = begin(e);
    rows(check, "o", a.o, a.o), rows(check, "r", a.r, a.o), rows(check, "grad_y", a.grad_y, a.o);
    result(check, "grad_o", a.grad_o, a.o), result(check, "grad_r", a.grad_r, a.o);
    check.overlaps({"grad_y", "grad_o"});
    if (!check.ok()) return check.result();
    using agent = reset_agent<group<Executor>, T, policy<Executor>, true>;
    reset_params<T> const p{
        a.o, a.r, a.grad_y, {}, a.grad_o, a.grad_r, access<Executor>({a.o, a.r, a.grad_y}, {a.grad_o, a.grad_r})};
    return launch<agent>(e, p, a.o.count());
  }

  /// y from x, u, hx and h.
  template <class Executor>
  TCNCA_HIDDEN static status update(Executor e, update_args const& a) noexcept {
    argument_check check = begin(e);
    rows(check, "h", a.h, a.h), rows(check, "x", a.x, a.h);
    gates(check, a);
    result(check, "y", a.y, a.h);
    check.overlaps({"x", "y", "h", "y"});
    if (!check.ok()) return check.result();
    using agent = update_agent<group<Executor>, T, Shape, policy<Executor>, false>;
    update_params<T> const p{a.x, a.u, a.hx, a.h, {},         a.y,
                             {},  {},  {},   {},  dropout(a), access<Executor>({a.x, a.u, a.hx, a.h}, {a.y})};
    return launch<agent>(e, p, a.h.count());
  }
  /// All gradients of update; each is overwritten.
  template <class Executor>
  TCNCA_HIDDEN static status update_backward(Executor e, update_backward_args const& a) noexcept {
    argument_check check = begin(e);
    rows(check, "h", a.h, a.h);
    if (Shape.update_gate) rows(check, "x", a.x, a.h);
    else check.only_if(false, "x", a.x);
    gates(check, a);
    rows(check, "grad_y", a.grad_y, a.h);
    result(check, "grad_x", a.grad_x, a.h);
    if (Shape.update_gate) result(check, "grad_u", a.grad_u, a.h);
    else check.only_if(false, "grad_u", a.grad_u);
    if (Shape.mixer_path) result(check, "grad_hx", a.grad_hx, a.h);
    else check.only_if(false, "grad_hx", a.grad_hx);
    result(check, "grad_h", a.grad_h, a.h);
    check.overlaps({"grad_y", "grad_x"});
    if (!check.ok()) return check.result();
    using agent = update_agent<group<Executor>, T, Shape, policy<Executor>, true>;
    update_params<T> const p{
        a.x,        a.u,
        a.hx,       a.h,
        a.grad_y,   {},
        a.grad_x,   a.grad_u,
        a.grad_hx,  a.grad_h,
        dropout(a), access<Executor>({a.x, a.u, a.hx, a.h, a.grad_y}, {a.grad_x, a.grad_u, a.grad_hx, a.grad_h})};
    return launch<agent>(e, p, a.h.count());
  }

 private:
  template <class Executor>
  static constexpr gated_fusion_policy policy = Tuning::pass(executor_traits<Executor>::target);
  template <class Executor>
  using group = typename executor_traits<Executor>::template group<policy<Executor>.threads>;

  struct extent_list {
    index_t batch, length, columns;
  };
  static extent_list extents(input const& v) { return {v.extent[0], v.extent[1], v.extent[2]}; }

  template <class Executor>
  static argument_check begin(Executor e) {
    argument_check check;
    check.demand(executor_traits<Executor>::valid(e), status_code::invalid_executor);
    return check;
  }
  static constexpr index_t most_columns = index_t(1) << 28;
  static void rows(argument_check& check, char const* name, input const& v, input const& like) {
    check.input(name, v, {like.extent[0], like.extent[1], like.extent[2]}, 2);
    check.demand(v.extent[2] <= most_columns, status_code::invalid_extent, name);
  }
  static void result(argument_check& check, char const* name, output const& v, input const& like) {
    check.output(name, v, {like.extent[0], like.extent[1], like.extent[2]}, 2);
  }
  static void parameters(argument_check& check, char const* name, tensor_view<accumulate const, 1> const& v,
                         index_t columns) {
    check.input(name, v, {columns});
  }
  static void gates(argument_check& check, auto const& a) {
    if (Shape.update_gate) rows(check, "u", a.u, a.h);
    else check.only_if(false, "u", a.u);
    if (Shape.mixer_path) rows(check, "hx", a.hx, a.h);
    else check.only_if(false, "hx", a.hx);
    if (Shape.dropout)
      check.demand(detail::is_finite(a.dropout) && a.dropout >= 0 && a.dropout < 1, status_code::invalid_value,
                   "dropout");
    else check.demand(detail::is_finite(a.dropout) && a.dropout == 0, status_code::unexpected_argument, "dropout");
  }
  static detail::element_dropout dropout(auto const& a) {
    return {a.dropout > 0 && a.dropout < 1 ? uint32(a.dropout * 4294967296.0) : 0, 1 / (1 - a.dropout), a.seed,
            a.offset};
  }

  /// Results larger than the caches go past them, if they are aligned.
  template <class Executor>
  static pass_access access(std::initializer_list<input> inputs, std::initializer_list<output> results) {
    constexpr gated_fusion_policy p = policy<Executor>;
    pass_access how{true, p.streaming_bytes > 0};
    size_t bytes = 0;
    for (auto const& v : inputs) how.vectorizable = how.vectorizable && rows_vectorizable<Executor>(p.width, v);
    for (auto const& v : results) {
      how.vectorizable = how.vectorizable && rows_vectorizable<Executor>(p.width, v);
      how.streaming = how.streaming && aligned_rows(p.width, v);
      bytes += size_t(v.count()) * sizeof(T);
    }
    how.streaming = how.streaming && bytes > p.streaming_bytes;
    return how;
  }
  template <class Agent, class Executor, class Params>
  static status launch(Executor e, Params const& p, index_t elements) {
    return elements == 0 ? status{} : executor_traits<Executor>::template launch<Agent>(e, p, Agent::items(p), {}, {});
  }
  template <class Executor>
  static group_memory mix_memory(index_t columns) {
    return {mix_backward_agent<group<Executor>, T, policy<Executor>>::shared_memory_elements(int(columns)) *
                sizeof(accumulate),
            0};
  }
  template <class Executor>
  static workspace_bytes mix_backward_bytes(Executor e, mix_backward_args const& a) {
    using traits = executor_traits<Executor>;
    index_t const items =
        mix_backward_agent<group<Executor>, T, policy<Executor>>::items_for(a.z.extent[0] * a.z.extent[1]);
    return workspace_bytes::of(sums_bytes<Executor>(a), traits::bytes_per_worker(mix_memory<Executor>(a.z.extent[2])),
                               traits::workers(e, items));
  }
  template <class Executor>
  static size_t sums_bytes(mix_backward_args const& a) {
    index_t const items =
        mix_backward_agent<group<Executor>, T, policy<Executor>>::items_for(a.z.extent[0] * a.z.extent[1]);
    return detail::workspace_part(size_t(items), size_t(4 * a.z.extent[2]) * sizeof(accumulate));
  }
};

}  // namespace tcnca
