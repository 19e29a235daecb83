// The choices that shapes are made of.
#pragma once

namespace tcnca {

/// What follows each convolution. gelu_erf: x Phi(x); gelu_tanh: its usual tanh form.
enum class activation { none, relu, silu, gelu_erf, gelu_tanh, tanh };

/// Where the input of a span of convolutions is added to its output: nowhere, around the convolutions of each level, around each block.
enum class residual { none, level, block };

/// Which samples an output may see: those before it; those on both sides, evenly (odd taps); those before and those after it, by two sets of
/// weights whose results are summed.
enum class direction { causal, symmetric, bidirectional };

/// Which axis of a sequence [batch, channels, length] is contiguous in memory.
enum class layout {
  batch_channels_length,  ///< positions are neighbours (PyTorch's Conv1d)
  batch_length_channels,  ///< channels are neighbours (channels last)
};

/// What turns the scores of an attention into its weights: softmax over the row, or, element by element and not normalised,
/// laplace: (1 + erf((s - sqrt(1/2)) / sqrt(1/(2 pi)))) / 2, relu2: max(s, 0)^2.
enum class attention_function { softmax, laplace, relu2 };

}  // namespace tcnca
