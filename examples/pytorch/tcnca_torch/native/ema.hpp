// The passes of ema.
#pragma once
#include <tcnca/ema.hpp>

#include "binding.hpp"

namespace tcnca_torch {

template <class T, tcnca::ema_shape Shape>
struct ema_forward {
  using operation = tcnca::ema<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::forward_args{.x = r,
                                            .delta = r,
                                            .alpha = r,
                                            .beta = r,
                                            .gamma = r,
                                            .omega = r,
                                            .state_in = r,
                                            .y = r,
                                            .state_out = r,
                                            .offsets = r,
                                            .max_length = r,
                                            .slots = r};
  }
  static auto workspace(auto e, auto const& a) { return operation::forward_workspace(e, a); }
  static auto run(auto e, auto const& a, tcnca::workspace w) { return operation::forward(e, a, w); }
};

template <class T, tcnca::ema_shape Shape>
struct ema_backward {
  using operation = tcnca::ema<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::backward_args{.x = r,
                                             .delta = r,
                                             .alpha = r,
                                             .beta = r,
                                             .gamma = r,
                                             .omega = r,
                                             .state_in = r,
                                             .grad_y = r,
                                             .grad_state_out = r,
                                             .grad_x = r,
                                             .grad_delta = r,
                                             .grad_alpha = r,
                                             .grad_beta = r,
                                             .grad_gamma = r,
                                             .grad_omega = r,
                                             .grad_state_in = r,
                                             .offsets = r,
                                             .max_length = r,
                                             .slots = r};
  }
  static auto workspace(auto e, auto const& a) { return operation::backward_workspace(e, a); }
  static auto run(auto e, auto const& a, tcnca::workspace w) { return operation::backward(e, a, w); }
};

}  // namespace tcnca_torch
