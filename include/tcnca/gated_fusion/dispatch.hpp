// From the arguments of gated_fusion to launches of its agents.
#pragma once
#include <initializer_list>

#include "../core/workspace.hpp"
#include "../launch/alignment.hpp"
#include "../launch/launch.hpp"
#include "mix_backward.hpp"

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
                                                   .access = access({a.z}, {a.q, a.k})});
  }

  /// Workspace: the sums of all items, then nothing or the memory of the CPU's workers. Depends on a.z's extents only.
  static workspace_bytes mix_backward_bytes(Executor e, auto const& a) {
    auto const params = mix_backward_params_of(a, nullptr);
    return workspace_for<mix_backward_pass>(e, params, sums_bytes(params));
  }
  TCNCA_HIDDEN static status mix_backward(Executor e, auto const& a, workspace scratch) {
    auto const params = mix_backward_params_of(a, static_cast<A*>(scratch.data));
    status const s = launch<mix_backward_pass>(e, params, workspace_after(scratch, sums_bytes(params)));
    if (!s.ok()) return s;
    return launch<mix_reduce_agent<group, T>>(e, {.sums = params.sums,
                                                  .items = mix_backward_pass::items(params),
                                                  .grad_gq = a.grad_gq,
                                                  .grad_mq = a.grad_mq,
                                                  .grad_gk = a.grad_gk,
                                                  .grad_mk = a.grad_mk});
  }

  TCNCA_HIDDEN static status reset(Executor e, auto const& a) {
    return launch<reset_agent<group, T, policy, false>>(
        e, {.o = a.o, .r = a.r, .y = a.y, .access = access({a.o, a.r}, {a.y})});
  }
  TCNCA_HIDDEN static status reset_backward(Executor e, auto const& a) {
    return launch<reset_agent<group, T, policy, true>>(e,
                                                       {.o = a.o,
                                                        .r = a.r,
                                                        .grad_y = a.grad_y,
                                                        .grad_o = a.grad_o,
                                                        .grad_r = a.grad_r,
                                                        .access = access({a.o, a.r, a.grad_y}, {a.grad_o, a.grad_r})});
  }

  TCNCA_HIDDEN static status update(Executor e, auto const& a) {
    return launch<update_agent<group, T, Shape, policy, false>>(
        e, {.x = a.x,
            .u = a.u,
            .hx = a.hx,
            .h = a.h,
            .y = a.y,
            .dropout = dropout_params<A>::of(a.dropout, a.seed, a.offset),
            .access = access({a.x, a.u, a.hx, a.h}, {a.y})});
  }
  TCNCA_HIDDEN static status update_backward(Executor e, auto const& a) {
    return launch<update_agent<group, T, Shape, policy, true>>(
        e, {.x = a.x,
            .u = a.u,
            .hx = a.hx,
            .h = a.h,
            .grad_y = a.grad_y,
            .grad_x = a.grad_x,
            .grad_u = a.grad_u,
            .grad_hx = a.grad_hx,
            .grad_h = a.grad_h,
            .dropout = dropout_params<A>::of(a.dropout, a.seed, a.offset),
            .access = access({a.x, a.u, a.hx, a.h, a.grad_y}, {a.grad_x, a.grad_u, a.grad_hx, a.grad_h})});
  }

 private:
  static mix_backward_params<T> mix_backward_params_of(auto const& a, A* sums) {
    return {.z = a.z,
            .gq = a.gq,
            .gk = a.gk,
            .grad_q = a.grad_q,
            .grad_k = a.grad_k,
            .grad_z = a.grad_z,
            .sums = sums,
            .access = access({a.z, a.grad_q, a.grad_k}, {a.grad_z})};
  }
  static size_t sums_bytes(mix_backward_params<T> const& params) {
    return workspace_part(size_t(mix_backward_pass::items(params)), size_t(4 * params.z.extent[2]) * sizeof(A));
  }

  static pass_access access(std::initializer_list<tensor_view<T const, 3>> inputs,
                            std::initializer_list<tensor_view<T, 3>> outputs) {
    bool vectorizable = true, aligned = true;
    size_t bytes = 0;
    for (auto const& v : inputs) vectorizable = vectorizable && rows_vectorizable<Executor>(policy.width, v);
    for (auto const& v : outputs) {
      vectorizable = vectorizable && rows_vectorizable<Executor>(policy.width, v);
      aligned = aligned && aligned_rows(policy.width, v);
      bytes += size_t(v.count()) * sizeof(T);
    }
    bool const exceeds_caches = policy.streaming_bytes > 0 && bytes > policy.streaming_bytes;
    return {.vectorizable = vectorizable, .streaming = aligned && exceeds_caches};
  }
};

}  // namespace tcnca::inline TCNCA_TARGET::detail
