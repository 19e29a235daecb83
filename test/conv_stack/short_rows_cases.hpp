// Stacks for the kernels of short rows, and the generic kernels to compare them with.
#pragma once
#include "cases.hpp"

namespace tcnca::testing {

struct four_levels {
  static constexpr char const* name = "four_levels";
  static constexpr conv_stack_shape shape{.taps = 4, .depth = 4, .dilation_base = 4};
};
struct many_taps {
  static constexpr char const* name = "many_taps";
  static constexpr conv_stack_shape shape{.taps = 17, .depth = 2, .dilation_base = 16, .bias = true};
};
struct blocks_relu {
  static constexpr char const* name = "blocks_relu";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .depth = 2,
                                          .dilation_base = 11,
                                          .blocks = 2,
                                          .act = activation::relu,
                                          .residuals = residual::block,
                                          .bias = true};
};
struct symmetric_tanh {
  static constexpr char const* name = "symmetric_tanh";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .dilations = {1, 7, 40},
                                          .act = activation::tanh,
                                          .residuals = residual::level,
                                          .dir = direction::symmetric};
};
struct bidirectional_plain {
  static constexpr char const* name = "bidirectional_plain";
  static constexpr conv_stack_shape shape{
      .taps = 4, .depth = 3, .dilation_base = 5, .bias = true, .dir = direction::bidirectional};
};

/// A policy for vectors of so many bytes.
template <class S>
constexpr conv_stack_policy policy_of(int bytes) {
  conv_stack_policy p = S::policy;
  p.width = max_of(1, bytes / int(sizeof(typename S::A)));
  return p;
}

template <class T, class Case>
using generic_case = stack_case<T, Case, generic_tuning<T, Case::shape>>;
using short_rows_subjects = all_or_few<
    subjects_on_one<
        generic_case<float, four_levels>, generic_case<double, four_levels>, generic_case<bf16, four_levels>,
        generic_case<fp16, list_silu_level>, generic_case<float, list_silu_level>, generic_case<float, many_taps>,
        generic_case<float, blocks_relu>, generic_case<float, symmetric_tanh>, generic_case<double, symmetric_gelu>,
        generic_case<bf16, bidirectional_plain>, generic_case<float, bidirectional_skip>, generic_case<float, one_tap>>,
    subjects_on_one<generic_case<float, list_silu_level>, generic_case<bf16, bidirectional_plain>>>;

}  // namespace tcnca::testing
