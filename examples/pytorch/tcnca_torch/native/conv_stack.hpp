// The passes of conv_stack.
#pragma once
#include <tcnca/conv_stack.hpp>

#include "binding.hpp"

namespace tcnca_torch {

template <class T, tcnca::conv_stack_shape Shape>
struct conv_stack_forward {
  using operation = tcnca::conv_stack<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::forward_args{.x = r,
                                            .weight = r,
                                            .bias = r,
                                            .omega = r,
                                            .state_in = r,
                                            .y = r,
                                            .state_out = r,
                                            .position = r,
                                            .offsets = r,
                                            .max_length = r,
                                            .slots = r,
                                            .positions = r};
  }
  static auto workspace(auto e, auto const& a) { return operation::forward_workspace(e, a); }
  static auto run(auto e, auto const& a, tcnca::workspace w) { return operation::forward(e, a, w); }
};

template <class T, tcnca::conv_stack_shape Shape>
struct conv_stack_backward {
  using operation = tcnca::conv_stack<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::backward_args{.x = r,
                                             .weight = r,
                                             .bias = r,
                                             .omega = r,
                                             .state_in = r,
                                             .grad_y = r,
                                             .grad_state_out = r,
                                             .grad_x = r,
                                             .grad_weight = r,
                                             .grad_bias = r,
                                             .grad_omega = r,
                                             .grad_state_in = r,
                                             .position = r,
                                             .offsets = r,
                                             .max_length = r,
                                             .slots = r,
                                             .positions = r};
  }
  static auto workspace(auto e, auto const& a) { return operation::backward_workspace(e, a); }
  static auto run(auto e, auto const& a, tcnca::workspace w) { return operation::backward(e, a, w); }
};

}  // namespace tcnca_torch
