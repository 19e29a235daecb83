// The passes of gated_fusion. Only mix_backward has a workspace.
#pragma once
#include <tcnca/gated_fusion.hpp>

#include "binding.hpp"

namespace tcnca_torch {

template <class T, tcnca::gated_fusion_shape Shape>
struct mix {
  using operation = tcnca::gated_fusion<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::mix_args{.z = r, .gq = r, .mq = r, .gk = r, .mk = r, .q = r, .k = r};
  }
  static auto run(auto e, auto const& a, tcnca::workspace) { return operation::mix(e, a); }
};

template <class T, tcnca::gated_fusion_shape Shape>
struct mix_backward {
  using operation = tcnca::gated_fusion<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::mix_backward_args{.z = r,
                                                 .gq = r,
                                                 .gk = r,
                                                 .grad_q = r,
                                                 .grad_k = r,
                                                 .grad_z = r,
                                                 .grad_gq = r,
                                                 .grad_mq = r,
                                                 .grad_gk = r,
                                                 .grad_mk = r};
  }
  static auto workspace(auto e, auto const& a) { return operation::mix_backward_workspace(e, a); }
  static auto run(auto e, auto const& a, tcnca::workspace w) { return operation::mix_backward(e, a, w); }
};

template <class T, tcnca::gated_fusion_shape Shape>
struct reset {
  using operation = tcnca::gated_fusion<T, Shape>;
  static auto arguments(reader r) { return typename operation::reset_args{.o = r, .r = r, .y = r}; }
  static auto run(auto e, auto const& a, tcnca::workspace) { return operation::reset(e, a); }
};

template <class T, tcnca::gated_fusion_shape Shape>
struct reset_backward {
  using operation = tcnca::gated_fusion<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::reset_backward_args{.o = r, .r = r, .grad_y = r, .grad_o = r, .grad_r = r};
  }
  static auto run(auto e, auto const& a, tcnca::workspace) { return operation::reset_backward(e, a); }
};

template <class T, tcnca::gated_fusion_shape Shape>
struct update {
  using operation = tcnca::gated_fusion<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::update_args{
        .x = r, .u = r, .hx = r, .h = r, .y = r, .dropout = r, .seed = r, .offset = r, .random_state = r};
  }
  static auto run(auto e, auto const& a, tcnca::workspace) { return operation::update(e, a); }
};

template <class T, tcnca::gated_fusion_shape Shape>
struct update_backward {
  using operation = tcnca::gated_fusion<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::update_backward_args{.x = r,
                                                    .u = r,
                                                    .hx = r,
                                                    .h = r,
                                                    .grad_y = r,
                                                    .grad_x = r,
                                                    .grad_u = r,
                                                    .grad_hx = r,
                                                    .grad_h = r,
                                                    .dropout = r,
                                                    .seed = r,
                                                    .offset = r,
                                                    .random_state = r};
  }
  static auto run(auto e, auto const& a, tcnca::workspace) { return operation::update_backward(e, a); }
};

}  // namespace tcnca_torch
