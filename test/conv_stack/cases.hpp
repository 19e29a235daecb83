// The shapes under test: few, each with several options, so that every option is combined with others.
#pragma once
#include "problem.hpp"

namespace tcnca::testing {

struct plain {  // the shape of the comparison with FFTs
  static constexpr char const* name = "plain";
  static constexpr conv_stack_shape shape{.taps = 4, .depth = 3, .dilation_base = 4};
};
struct list_silu_level {
  static constexpr char const* name = "list_silu_level";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .dilations = {1, 5, 2},
                                          .convolutions = 2,
                                          .act = activation::silu,
                                          .residuals = residual::level,
                                          .bias = true,
                                          .skip = true};
};
struct blocks_relu_last {  // channels last
  static constexpr char const* name = "blocks_relu_last";
  static constexpr conv_stack_shape shape{.taps = 2,
                                          .depth = 2,
                                          .dilation_base = 3,
                                          .blocks = 2,
                                          .act = activation::relu,
                                          .residuals = residual::block,
                                          .bias = true,
                                          .order = layout::batch_length_channels};
};
struct skip_gelu_last {
  static constexpr char const* name = "skip_gelu_last";
  static constexpr conv_stack_shape shape{.taps = 4,
                                          .depth = 2,
                                          .dilation_base = 4,
                                          .act = activation::gelu_erf,
                                          .residuals = residual::level,
                                          .skip = true,
                                          .order = layout::batch_length_channels};
};
struct symmetric_gelu {
  static constexpr char const* name = "symmetric_gelu";
  static constexpr conv_stack_shape shape{.taps = 5,
                                          .depth = 2,
                                          .dilation_base = 3,
                                          .act = activation::gelu_erf,
                                          .residuals = residual::level,
                                          .bias = true,
                                          .dir = direction::symmetric};
};
struct symmetric_last {
  static constexpr char const* name = "symmetric_last";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .depth = 3,
                                          .dilation_base = 2,
                                          .act = activation::gelu_tanh,
                                          .skip = true,
                                          .dir = direction::symmetric,
                                          .order = layout::batch_length_channels};
};
struct bidirectional_skip {
  static constexpr char const* name = "bidirectional_skip";
  static constexpr conv_stack_shape shape{.taps = 4,
                                          .depth = 2,
                                          .dilation_base = 3,
                                          .convolutions = 2,
                                          .act = activation::gelu_tanh,
                                          .residuals = residual::level,
                                          .bias = true,
                                          .skip = true,
                                          .dir = direction::bidirectional};
};
struct bidirectional_last {
  static constexpr char const* name = "bidirectional_last";
  static constexpr conv_stack_shape shape{.taps = 3,
                                          .depth = 2,
                                          .dilation_base = 3,
                                          .blocks = 2,
                                          .act = activation::tanh,
                                          .residuals = residual::block,
                                          .dir = direction::bidirectional,
                                          .order = layout::batch_length_channels};
};
struct one_tap {  // no history
  static constexpr char const* name = "one_tap";
  static constexpr conv_stack_shape shape{.taps = 1, .depth = 2, .act = activation::tanh, .bias = true};
};
struct many_taps_last {
  static constexpr char const* name = "many_taps_last";
  static constexpr conv_stack_shape shape{
      .taps = 17, .depth = 2, .dilation_base = 6, .order = layout::batch_length_channels};
};
struct far_51_taps {  // all of 131072 positions in three levels
  static constexpr char const* name = "far_51_taps";
  static constexpr conv_stack_shape shape{.taps = 51, .depth = 3, .dilation_base = 51};
};
struct far_first {  // histories of the same lengths, 51, 2550 and 130050: the last does not fit in shared memory
  static constexpr char const* name = "far_first";
  static constexpr conv_stack_shape shape{.taps = 4, .dilations = {17, 850, 43350}};
};
struct far_skip_last {  // no activation: gradients of sums, residuals and the skip share one ring
  static constexpr char const* name = "far_skip_last";
  static constexpr conv_stack_shape shape{.taps = 4,
                                          .depth = 5,
                                          .dilations = {100, 300, 200, 300, 100},
                                          .residuals = residual::level,
                                          .skip = true,
                                          .order = layout::batch_length_channels};
};
struct far_last_4096 {  // few taps: compilers unroll them
  static constexpr char const* name = "far_last_4096";
  static constexpr conv_stack_shape shape{
      .taps = 4, .dilations = {2, 19, 149, 1195}, .act = activation::silu, .order = layout::batch_length_channels};
};

// For tests of arguments.
struct small_list {  // all options of a causal stack, with little memory
  static constexpr char const* name = "small_list";
  static constexpr conv_stack_shape shape{
      .taps = 3, .depth = 2, .dilations = {1, 2}, .act = activation::silu, .bias = true, .skip = true};
};
struct small_last {  // no bias, no omega, channels last
  static constexpr char const* name = "small_last";
  static constexpr conv_stack_shape shape{.taps = 2, .depth = 2, .order = layout::batch_length_channels};
};
struct small_symmetric {  // no state
  static constexpr char const* name = "small_symmetric";
  static constexpr conv_stack_shape shape{.taps = 3, .bias = true, .dir = direction::symmetric};
};

/// A tuning of the generic kernels with small tiles, short segments, and rings that do not fit in shared memory, so
/// that short sequences reach all edge cases.
template <class T, int Tile = 32, size_t Near = 2048>
struct small_tuning {
  static constexpr conv_stack_policy forward(target t) {
    bool const on_cpu = t.compute_capability == 0;
    return {.width = on_cpu ? 16 / int(sizeof(accumulate_t<T>)) : 1,
            .packs = on_cpu ? 1 : 2,
            .outputs_per_thread = 3,
            .tile = Tile,
            .tile_max = 3 * Tile,
            .single_tile_limit = 2 * Tile,
            .threads = on_cpu ? 1 : 32,
            .shared_memory_bytes = Near,
            .streaming_bytes = 0,
            .segment_fields = 1,
            .kernels = stack_kernels::generic};
  }
  static constexpr conv_stack_policy backward(target t) { return forward(t); }
};

/// A case under that tuning.
template <class T, class Case>
using small_case = stack_case<T, Case, small_tuning<T>>;

}  // namespace tcnca::testing
