// The passes of chunked_attention.
#pragma once
#include <tcnca/chunked_attention.hpp>

#include "binding.hpp"

namespace tcnca_torch {

template <class T, tcnca::chunked_attention_shape Shape>
struct attention_forward {
  using operation = tcnca::chunked_attention<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::forward_args{.q = r,
                                            .k = r,
                                            .v = r,
                                            .bias = r,
                                            .alibi_slopes = r,
                                            .lengths = r,
                                            .head_lengths = r,
                                            .keys_in = r,
                                            .values_in = r,
                                            .o = r,
                                            .lse = r,
                                            .keys_out = r,
                                            .values_out = r,
                                            .chunk = r,
                                            .position = r,
                                            .window = r,
                                            .scale = r,
                                            .dropout = r,
                                            .seed = r,
                                            .offset = r,
                                            .offsets = r,
                                            .max_length = r,
                                            .slots = r,
                                            .positions = r,
                                            .random_state = r};
  }
  static auto workspace(auto e, auto const& a) { return operation::forward_workspace(e, a); }
  static auto run(auto e, auto const& a, tcnca::workspace w) { return operation::forward(e, a, w); }
};

template <class T, tcnca::chunked_attention_shape Shape>
struct attention_backward {
  using operation = tcnca::chunked_attention<T, Shape>;
  static auto arguments(reader r) {
    return typename operation::backward_args{.q = r,
                                             .k = r,
                                             .v = r,
                                             .bias = r,
                                             .alibi_slopes = r,
                                             .lengths = r,
                                             .head_lengths = r,
                                             .keys_in = r,
                                             .values_in = r,
                                             .o = r,
                                             .lse = r,
                                             .grad_o = r,
                                             .grad_keys_out = r,
                                             .grad_values_out = r,
                                             .grad_q = r,
                                             .grad_k = r,
                                             .grad_v = r,
                                             .grad_bias = r,
                                             .grad_keys_in = r,
                                             .grad_values_in = r,
                                             .chunk = r,
                                             .position = r,
                                             .window = r,
                                             .scale = r,
                                             .dropout = r,
                                             .seed = r,
                                             .offset = r,
                                             .offsets = r,
                                             .max_length = r,
                                             .slots = r,
                                             .positions = r,
                                             .random_state = r};
  }
  static auto workspace(auto e, auto const& a) { return operation::backward_workspace(e, a); }
  static auto run(auto e, auto const& a, tcnca::workspace w) { return operation::backward(e, a, w); }
};

template <class T, tcnca::chunked_attention_shape Shape>
struct rotary {
  using operation = tcnca::chunked_attention<T, Shape>;
  static auto arguments(reader r) { return typename operation::rotary_args{.a = r, .b = r, .bias = r, .chunk = r}; }
  static auto run(auto e, auto const& a, tcnca::workspace) { return operation::rotary(e, a); }
};

template <class T, tcnca::chunked_attention_shape Shape>
struct rotary_backward {
  using operation = tcnca::chunked_attention<T, Shape>;
  static auto arguments(reader r) {
    return
        typename operation::rotary_backward_args{.a = r, .b = r, .grad_bias = r, .grad_a = r, .grad_b = r, .chunk = r};
  }
  static auto run(auto e, auto const& a, tcnca::workspace) { return operation::rotary_backward(e, a); }
};

}  // namespace tcnca_torch
