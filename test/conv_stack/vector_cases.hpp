// Shapes under test on the CPU. Each needs something of the kernels that the others do not: the storage of a layer's
// history depends on the taps, the dilation and its remainder by the width, and on what the other layers need.
#pragma once
#include <tcnca/conv_stack.hpp>

namespace tcnca::testing::shapes {

/// The same stack with channels as lanes.
constexpr conv_stack_shape last(conv_stack_shape s) {
  s.order = layout::batch_length_channels;
  return s;
}

// Powers of two: the stacks of the comparison with FFTs, and shorter ones.
inline constexpr conv_stack_shape k4_f4{.taps = 4, .depth = 6, .dilation_base = 4};
inline constexpr conv_stack_shape k8_f8_relu{.taps = 8, .depth = 4, .dilation_base = 8, .act = activation::relu};
inline constexpr conv_stack_shape k17_f16_bias{
    .taps = 17, .depth = 3, .dilation_base = 16, .act = activation::gelu_tanh, .bias = true};
inline constexpr conv_stack_shape k2_f2_silu{
    .taps = 2, .depth = 9, .act = activation::silu, .residuals = residual::level};
inline constexpr conv_stack_shape k4_one_level{.taps = 4, .depth = 1, .skip = true};
inline constexpr conv_stack_shape k4_f16_beyond{// histories far longer than most sequences
                                                .taps = 4,
                                                .depth = 4,
                                                .dilation_base = 16,
                                                .act = activation::relu};

// Other bases: dilations that are no multiples of a width, and several levels of the same dilation.
inline constexpr conv_stack_shape k51_f7{.taps = 51, .depth = 3, .dilation_base = 7};
inline constexpr conv_stack_shape k3_f3_block{
    .taps = 3, .depth = 4, .dilation_base = 3, .act = activation::tanh, .residuals = residual::block, .bias = true};
inline constexpr conv_stack_shape k5_f1_blocks{.taps = 5,
                                               .depth = 2,
                                               .dilation_base = 1,
                                               .convolutions = 2,
                                               .blocks = 2,
                                               .act = activation::gelu_erf,
                                               .residuals = residual::block,
                                               .skip = true};
inline constexpr conv_stack_shape k1_tanh{.taps = 1, .depth = 2, .act = activation::tanh, .bias = true};

// Lists: dilations in any order, with one long history among short ones.
inline constexpr conv_stack_shape list_any{.taps = 3,
                                           .dilations = {1, 3, 37, 130, 5},
                                           .act = activation::gelu_erf,
                                           .residuals = residual::level,
                                           .bias = true,
                                           .skip = true};
inline constexpr conv_stack_shape list_100{.taps = 4, .dilations = {100}};
inline constexpr conv_stack_shape list_129{
    .taps = 2, .dilations = {129, 64, 1000}, .act = activation::silu, .residuals = residual::level, .skip = true};
inline constexpr conv_stack_shape list_multiples{.taps = 3, .dilations = {256, 16, 48, 128, 32}, .bias = true};
inline constexpr conv_stack_shape list_near{.taps = 4, .dilations = {15, 17, 31, 33, 127}, .act = activation::relu};
inline constexpr conv_stack_shape list_long{// only the second layer's history is short
                                            .taps = 4,
                                            .dilations = {5000, 2, 9001},
                                            .act = activation::relu,
                                            .residuals = residual::block};

// Layers that look ahead.
inline constexpr conv_stack_shape symmetric_f7{.taps = 5,
                                               .depth = 3,
                                               .dilation_base = 7,
                                               .act = activation::gelu_erf,
                                               .residuals = residual::level,
                                               .bias = true,
                                               .dir = direction::symmetric};
inline constexpr conv_stack_shape symmetric_list{
    .taps = 3, .dilations = {64, 1, 300, 16}, .skip = true, .dir = direction::symmetric};
inline constexpr conv_stack_shape symmetric_k17{
    .taps = 17, .depth = 2, .dilation_base = 16, .act = activation::relu, .dir = direction::symmetric};
inline constexpr conv_stack_shape bidirectional_f4{.taps = 4,
                                                   .depth = 4,
                                                   .dilation_base = 4,
                                                   .act = activation::relu,
                                                   .residuals = residual::level,
                                                   .dir = direction::bidirectional};
inline constexpr conv_stack_shape bidirectional_skip{.taps = 2,
                                                     .dilations = {15, 17, 31, 127},
                                                     .convolutions = 2,
                                                     .act = activation::gelu_tanh,
                                                     .residuals = residual::level,
                                                     .bias = true,
                                                     .skip = true,
                                                     .dir = direction::bidirectional};

}  // namespace tcnca::testing::shapes
