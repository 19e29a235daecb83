// The operation gated_fusion: the element-wise parts of a TCNCA layer, each in one pass over memory.
#pragma once
#include "core/check.hpp"
#include "core/text.hpp"
#include "gated_fusion/arguments.hpp"
#include "gated_fusion/dispatch.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The gates around the matrix products of a TCNCA layer, forward and backward. gated_fusion_shape selects them.
///
///   mix     q = silu(z) gq + mq,  k = silu(z) gk + mk
///           after the product with W_mx; its columns u | z | r | hx are read in place, as views
///   reset   y = o silu(r)
///           before the product with W_h
///   update  y = x + sigmoid(u) (keep silu(hx + h) - x)
///           after the product with W_h, whose result is h; keep is the factor of dropout
///
/// Backward passes recompute the activations from the pre-activations; forward passes store nothing for them.
///
/// Shapes       z, q, k: [batch, length, key_dim]; o, r: [batch, length, value_dim]; x, u, hx, h and update's y:
///              [batch, length, channels]; gq, mq, gk, mk: [key_dim]. A gradient has the shape of what it belongs to.
///              Extents of 0 are allowed. At most 2^28 columns. On a GPU mix_backward holds 4 key_dim numbers of
///              accumulate_t<T> in shared memory: key_dim up to 14500 in fp32 on sm_90; above it returns
///              unsupported_device.
/// Strides      Tensors of rank 3 have stride 1 along the last axis and any non-negative outer strides, so slices of a
///              product are valid arguments. Stride 0 broadcasts an input. Vectors may have any non-negative stride.
/// Types        T; accumulate_t<T> for gq, mq, gk, mk and their gradients. Arithmetic is in accumulate_t<T>.
/// Dropout      Of the candidate, by Philox4x32-10 with key `seed` and counter (position + offset, column / 4, batch),
///              where position is the index along the length. An element is dropped if word column % 4 is below 2^32
///              dropout, else divided by 1 - dropout. The backward pass recomputes the mask. Use a different seed for
///              each operation, layer and training step. Both numbers may be in memory, see random_state.
/// Aliasing     In place: y may be the same view as o in reset, or as x or h in update; grad_o (reset) or grad_x
///              (update) as grad_y. No other output may overlap another argument.
/// Determinism  Results have the same bits in every run and for any number of threads. Gradients of gq, mq, gk, mk are
///              summed over the rows in an order that depends on the extents, the type and the tuning only: blocks of
///              at most 1024 rows in accumulate_t<T>, then in fp64.
/// Complexity   One read or write per element of each tensor: 5 tensors for update, 3 for reset and mix; backward 9, 5
///              and 4. Only mix_backward needs a workspace: about 4 key_dim numbers for each of about 1000 items (on a
///              GPU 500), above a million rows for every 1024 rows.
/// Errors       Returned as a status. Unless it is success, nothing was written; exception: launch_failed
///              of mix_backward, which may come from the second of two launches. No entry point allocates, throws or
///              synchronizes; on a GPU the call returns when its kernels are enqueued.
/// Source       MEGA (arXiv 2209.10655), equations 5 to 15, and its code; TCNCA (arXiv 2312.05605) has the same gates.
///
/// The arithmetic is public too, in block/gate.hpp, for the epilogue of a matrix product.
template <element T, gated_fusion_shape Shape, class Tuning = default_gated_fusion_tuning<T>>
struct gated_fusion {
  using accumulate = accumulate_t<T>;
  using input = tensor_view<T const, 3>;
  using output = tensor_view<T, 3>;

  using mix_args = gated_fusion_mix_args<T>;
  using mix_backward_args = gated_fusion_mix_backward_args<T>;
  using reset_args = gated_fusion_reset_args<T>;
  using reset_backward_args = gated_fusion_reset_backward_args<T>;
  using update_args = gated_fusion_update_args<T>;
  using update_backward_args = gated_fusion_update_backward_args<T>;

  /// Computes q and k.
  template <class Executor>
  TCNCA_HIDDEN static status mix(Executor e, mix_args const& a) noexcept {
    argument_check check = check_executor(e);
    index_t const columns = a.z.extent[2];
    check_input(check, "z", a.z, a.z);
    check_parameter(check, "gq", a.gq, columns), check_parameter(check, "mq", a.mq, columns);
    check_parameter(check, "gk", a.gk, columns), check_parameter(check, "mk", a.mk, columns);
    check_output(check, "q", a.q, a.z), check_output(check, "k", a.k, a.z);
    check.overlaps();
    return check.ok() ? tuned<Executor>::mix(e, a) : check.result();
  }

  /// Bytes of workspace with which mix_backward runs on all workers of the executor (see workspace).
  template <class Executor>
  TCNCA_HIDDEN static size_t mix_backward_workspace(Executor e, mix_backward_args const& a) noexcept {
    bool const valid = tensor_limits::hold(a.z) && a.z.extent[2] <= max_columns;
    return valid ? tuned<Executor>::mix_backward_bytes(e, a).all : 0;
  }
  /// Computes the gradients of mix that are present.
  template <class Executor>
  TCNCA_HIDDEN static status mix_backward(Executor e, mix_backward_args const& a, workspace scratch) noexcept {
    argument_check check = check_executor(e);
    index_t const columns = a.z.extent[2];
    check_input(check, "z", a.z, a.z);
    check_parameter(check, "gq", a.gq, columns), check_parameter(check, "gk", a.gk, columns);
    check_input(check, "grad_q", a.grad_q, a.z), check_input(check, "grad_k", a.grad_k, a.z);
    check_gradient(check, "grad_z", a.grad_z, a.z);
    check.optional_output("grad_gq", a.grad_gq, {columns}).optional_output("grad_mq", a.grad_mq, {columns});
    check.optional_output("grad_gk", a.grad_gk, {columns}).optional_output("grad_mk", a.grad_mk, {columns});
    check.scratch(scratch, check.ok() ? tuned<Executor>::mix_backward_bytes(e, a) : workspace_bytes{}).overlaps();
    bool const any =
        a.grad_z.given() || a.grad_gq.given() || a.grad_mq.given() || a.grad_gk.given() || a.grad_mk.given();
    return check.ok() && any ? tuned<Executor>::mix_backward(e, a, scratch) : check.result();
  }

  /// Computes y.
  template <class Executor>
  TCNCA_HIDDEN static status reset(Executor e, reset_args const& a) noexcept {
    static_assert(Shape.reset_gate, "tcnca::gated_fusion: this shape has no reset gate");
    argument_check check = check_executor(e);
    check_input(check, "o", a.o, a.o), check_input(check, "r", a.r, a.o);
    check_output(check, "y", a.y, a.o);
    check.overlaps({"o", "y"});
    return check.ok() ? tuned<Executor>::reset(e, a) : check.result();
  }
  /// Computes the gradients of reset that are present.
  template <class Executor>
  TCNCA_HIDDEN static status reset_backward(Executor e, reset_backward_args const& a) noexcept {
    static_assert(Shape.reset_gate, "tcnca::gated_fusion: this shape has no reset gate");
    argument_check check = check_executor(e);
    check_input(check, "o", a.o, a.o), check_input(check, "r", a.r, a.o);
    check_input(check, "grad_y", a.grad_y, a.o);
    check_gradient(check, "grad_o", a.grad_o, a.o), check_gradient(check, "grad_r", a.grad_r, a.o);
    check.overlaps({"grad_y", "grad_o"});
    bool const any = a.grad_o.given() || a.grad_r.given();
    return check.ok() && any ? tuned<Executor>::reset_backward(e, a) : check.result();
  }

  /// Computes y.
  template <class Executor>
  TCNCA_HIDDEN static status update(Executor e, update_args const& a) noexcept {
    argument_check check = check_executor(e);
    check_input(check, "h", a.h, a.h), check_input(check, "x", a.x, a.h);
    check_gates(check, a);
    check_output(check, "y", a.y, a.h);
    check.overlaps({"x", "y", "h", "y"});
    return check.ok() ? tuned<Executor>::update(e, a) : check.result();
  }
  /// Computes the gradients of update that are present.
  template <class Executor>
  TCNCA_HIDDEN static status update_backward(Executor e, update_backward_args const& a) noexcept {
    argument_check check = check_executor(e);
    check_input(check, "h", a.h, a.h);
    if (Shape.update_gate) check_input(check, "x", a.x, a.h);
    else check.only_if(false, "x", a.x);
    check_gates(check, a);
    check_input(check, "grad_y", a.grad_y, a.h);
    check.only_if(Shape.update_gate, "grad_u", a.grad_u);
    check.only_if(Shape.mixer_path, "grad_hx", a.grad_hx);
    check_gradient(check, "grad_x", a.grad_x, a.h), check_gradient(check, "grad_u", a.grad_u, a.h);
    check_gradient(check, "grad_hx", a.grad_hx, a.h), check_gradient(check, "grad_h", a.grad_h, a.h);
    check.overlaps({"grad_y", "grad_x"});
    bool const any = a.grad_x.given() || a.grad_u.given() || a.grad_hx.given() || a.grad_h.given();
    return check.ok() && any ? tuned<Executor>::update_backward(e, a) : check.result();
  }

 private:
  template <class Executor>
  using tuned = detail::tuned_gated_fusion<T, Shape, Tuning, Executor>;
  static constexpr index_t max_columns = index_t(1) << 28;

  static void check_input(argument_check& check, char const* name, input const& v, input const& like) {
    check.input(name, v, {like.extent[0], like.extent[1], like.extent[2]}, 2);
    check.demand(v.extent[2] <= max_columns, status_code::invalid_extent, name);
  }
  static void check_output(argument_check& check, char const* name, output const& v, input const& like) {
    check.output(name, v, {like.extent[0], like.extent[1], like.extent[2]}, 2);
  }
  static void check_gradient(argument_check& check, char const* name, output const& v, input const& like) {
    check.optional_output(name, v, {like.extent[0], like.extent[1], like.extent[2]}, 2);
  }
  static void check_parameter(argument_check& check, char const* name, tensor_view<accumulate const, 1> const& v,
                              index_t columns) {
    check.input(name, v, {columns});
  }
  static void check_gates(argument_check& check, auto const& a) {
    if (Shape.update_gate) check_input(check, "u", a.u, a.h);
    else check.only_if(false, "u", a.u);
    if (Shape.mixer_path) check_input(check, "hx", a.hx, a.h);
    else check.only_if(false, "hx", a.hx);
    bool const finite = detail::is_finite(a.dropout);
    if (Shape.dropout) check.demand(finite && a.dropout >= 0 && a.dropout < 1, status_code::invalid_value, "dropout");
    else check.demand(finite && a.dropout == 0, status_code::unexpected_argument, "dropout");
    check.only_if(Shape.dropout, "random_state", a.random_state);
    check.optional_input("random_state", a.random_state, {2});
  }
};

}  // namespace tcnca
