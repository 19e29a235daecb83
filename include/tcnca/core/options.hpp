// Enumerations for the shapes of operations.
#pragma once

namespace tcnca {

/// The activation after each convolution. gelu_erf: x Phi(x); gelu_tanh: its tanh approximation.
enum class activation { none, relu, silu, gelu_erf, gelu_tanh, tanh };

/// Where a residual connection adds the input to the output: nowhere, around the convolutions of each level, or around
/// each block.
enum class residual { none, level, block };

/// The type of an operation's parameters: T, the type of its elements, or accumulate_t<T>, in which mixed-precision
/// training keeps them.
enum class parameter_type { element, accumulate };

/// Which samples an output depends on. causal: earlier ones and its own. symmetric: as many later as earlier ones (odd
/// taps). bidirectional: the sum of a causal and an anti-causal operation with separate parameters.
enum class direction { causal, symmetric, bidirectional };

/// The axis of a sequence [batch, channels, length] that is contiguous in memory.
enum class layout {
  batch_channels_length,  ///< length (PyTorch's Conv1d)
  batch_length_channels,  ///< channels (channels last)
};

/// The function from scores s to weights of an attention. softmax: over each row. Element-wise, not normalized:
/// laplace: (1 + erf((s - sqrt(1/2)) / sqrt(1/(2 pi)))) / 2; relu2: max(s, 0)^2.
enum class attention_function { softmax, laplace, relu2 };

}  // namespace tcnca
