// From the arguments of gated_fusion to launches of its agents.
#pragma once
#include <initializer_list>

#include "../core/workspace.hpp"
#include "../launch/alignment.hpp"
#include "../launch/launch.hpp"
#include "mix_backward.hpp"
#include "update.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The agents of gated_fusion under a tuning, on one kind of executor. Every function takes an argument struct of
/// gated_fusion that has passed the checks.
template <element T, gated_fusion_shape Shape, class Tuning, class Executor>
struct tuned_gated_fusion {
  using traits = executor_traits<Executor>;
  using A = accumulate_t<T>;
  static constexpr gated_fusion_policy policy = Tuning::pass(traits::target);
  using group = typename traits::template group<policy.threads>;
  using mix_backward_pass = mix_backward_agent<group, T, policy>;

  TCNCA_HIDDEN static status mix(Executor e, auto const& a) {
    return launch<mix_agent<group, T, policy>>(e, {.z = a.z,
                                                   .gq = a.gq,
                                                   .mq = a.mq,
                                                   .gk = a.gk,
                                                   .mk = a.mk,
                                                   .q = a.q,
                                                   .k = a.k,
                                                   .access = access({a.z}, {a.q, a.k}, {a.gq, a.mq, a.gk, a.mk})});
  }

  /// Workspace: the sums of all items, then nothing or the memory of the CPU's workers. Depends on a.z's extents only.
  static workspace_bytes mix_backward_bytes(Executor e, auto const& a) {
    auto const params = mix_backward_params_of(a, nullptr);
    return workspace_for<mix_backward_pass>(e, params, sums_bytes(params));
  }
  TCNCA_HIDDEN static status mix_backward(Executor e, auto const& a, workspace scratch) {
    auto const params = mix_backward_params_of(a, static_cast<A*>(scratch.data));
    status const s = launch<mix_backward_pass>(e, params, workspace_after(scratch, sums_bytes(params)));
    bool const any = a.grad_gq.given() || a.grad_mq.given() || a.grad_gk.given() || a.grad_mk.given();
    if (!s.ok() || !any) return s;
    return launch<mix_reduce_agent<group, T, policy>>(e, {.sums = params.sums,
                                                          .columns = a.z.extent[2],
                                                          .items = mix_backward_pass::items(params),
                                                          .sums_per_item = mix_backward_pass::sums_per_item(params),
                                                          .grad_gq = a.grad_gq,
                                                          .grad_mq = a.grad_mq,
                                                          .grad_gk = a.grad_gk,
                                                          .grad_mk = a.grad_mk});
  }

  TCNCA_HIDDEN static status reset(Executor e, auto const& a) {
    return launch<reset_agent<group, T, policy, false>>(
        e, {.o = a.o, .r = a.r, .y = a.y, .access = access({a.o, a.r}, {a.y}, {}, true)});
  }
  TCNCA_HIDDEN static status reset_backward(Executor e, auto const& a) {
    return launch<reset_agent<group, T, policy, true>>(
        e, {.o = a.o,
            .r = a.r,
            .grad_y = a.grad_y,
            .grad_o = a.grad_o,
            .grad_r = a.grad_r,
            .access = access({a.o, a.r, a.grad_y}, {a.grad_o, a.grad_r}, {}, true)});
  }

  TCNCA_HIDDEN static status update(Executor e, auto const& a) {
    return launch_update<false>(e, a.random_state,
                                {.x = a.x,
                                 .u = a.u,
                                 .hx = a.hx,
                                 .h = a.h,
                                 .y = a.y,
                                 .dropout = dropout_of(a),
                                 .access = access({a.x, a.u, a.hx, a.h}, {a.y}, {}, !Shape.dropout)});
  }
  TCNCA_HIDDEN static status update_backward(Executor e, auto const& a) {
    return launch_update<true>(e, a.random_state,
                               {.x = a.x,
                                .u = a.u,
                                .hx = a.hx,
                                .h = a.h,
                                .grad_y = a.grad_y,
                                .grad_x = a.grad_x,
                                .grad_u = a.grad_u,
                                .grad_hx = a.grad_hx,
                                .grad_h = a.grad_h,
                                .dropout = dropout_of(a),
                                .access = access({a.x, a.u, a.hx, a.h, a.grad_y},
                                                 {a.grad_x, a.grad_u, a.grad_hx, a.grad_h}, {}, !Shape.dropout)});
  }

 private:
  /// On a CPU with the seed and the offset that are in memory.
  static dropout_params<A> dropout_of(auto const& a) {
    bool const read = traits::target.is_cpu() && a.random_state.present();
    return dropout_params<A>::of(a.dropout, read ? *a.random_state.at(0) : a.seed,
                                 read ? *a.random_state.at(1) : a.offset);
  }
  /// On a GPU the kernel reads `random_state` if it is present.
  template <bool Backward>
  TCNCA_HIDDEN static status launch_update(Executor e, tensor_view<uint64 const, 1> const& random_state,
                                           update_params<T> params) {
    if constexpr (Shape.dropout && !traits::target.is_cpu()) {
      params.random_state = random_state;
      if (random_state.given()) return launch<update_agent<group, T, Shape, policy, Backward, true>>(e, params);
    }
    return launch<update_agent<group, T, Shape, policy, Backward>>(e, params);
  }
  static mix_backward_params<T> mix_backward_params_of(auto const& a, A* sums) {
    return {.z = a.z,
            .gq = a.gq,
            .gk = a.gk,
            .grad_q = a.grad_q,
            .grad_k = a.grad_k,
            .grad_z = a.grad_z,
            .sums = sums,
            .access = access({a.z, a.grad_q, a.grad_k}, {a.grad_z}, {a.gq, a.gk})};
  }
  static size_t sums_bytes(mix_backward_params<T> const& params) {
    return workspace_part(size_t(mix_backward_pass::items(params)),
                          size_t(mix_backward_pass::sums_per_item(params)) * sizeof(A));
  }

  /// joinable: the pass treats all columns alike.
  static pass_access access(std::initializer_list<tensor_view<T const, 3>> inputs,
                            std::initializer_list<tensor_view<T, 3>> outputs,
                            std::initializer_list<tensor_view<A const, 1>> parameters, bool joinable = false) {
    constexpr index_t longest_joined_row = 4096;  // longer rows gain nothing; an int counts the columns of an item
    bool vectorizable = true, aligned = true, parameters_aligned = true;
    bool joined = joinable && traits::target.is_cpu() && policy.rows <= (1 << 16);
    size_t bytes = 0;
    auto const visit = [&](auto const& v) {
      vectorizable = vectorizable && rows_vectorizable<Executor>(policy.width, v);
      index_t const columns = v.extent[2];
      joined = joined && (!v.given() || (columns <= longest_joined_row && v.stride[1] == columns &&
                                         (v.extent[0] == 1 || v.stride[0] == v.extent[1] * columns)));
    };
    for (auto const& v : inputs) visit(v);
    for (auto const& v : outputs) {
      visit(v);
      aligned = aligned && aligned_rows(policy.width, v);
      bytes += size_t(v.count()) * sizeof(T);
    }
    for (auto const& v : parameters)
      parameters_aligned = parameters_aligned && v.stride[0] == 1 && aligned_rows(16 / sizeof(A), v);
    bool const exceeds_caches = policy.streaming_bytes > 0 && bytes > policy.streaming_bytes;
    return {.vectorizable = vectorizable,
            .parameters_vectorizable = parameters_aligned,
            .streaming = aligned && exceeds_caches,
            .joined_rows = joined};
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
