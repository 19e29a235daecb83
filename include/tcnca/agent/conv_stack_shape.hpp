// What a stack of dilated convolutions is: everything known at compile time.
#pragma once
#include "../block/activation.hpp"
#include "../core/tensor.hpp"

namespace tcnca {

/// Where the input of a span of convolutions is added to its output: nowhere, around the convolutions of each level, around each block.
enum class residual { none, level, block };

/// Which samples an output may see: those before it; those on both sides, evenly (odd taps); a causal and an anti-causal stack, summed.
enum class direction { causal, symmetric, bidirectional };

/// A stack of dilated depthwise convolutions. Convolution i, from its input a:
///   pre[c,t] = bias[i,c] + sum_k weight[i,k,c] a[c, t + lead_i - k d_i],   output = act(pre) (+ the input of its span),
/// with lead 0 (causal), (taps-1) d/2 (symmetric), (taps-1) d (the anti-causal half of bidirectional), and a = 0 outside the sequence.
/// Tap 0 is the newest sample (PyTorch stores taps the other way round). `depth` levels, `convolutions` of one dilation in each,
/// repeated in `blocks` whose dilations restart. Bidirectional: one set of weights for each half, the causal one first.
/// With `skip`, y = silu(stack(x) + omega x), as MEGA puts after its EMA.
struct conv_stack_shape {
  static constexpr int max_listed = 24;

  int taps = 4;
  int depth = 1;
  int dilation_base = 2;            ///< level l has dilation dilation_base^l, unless a list is given
  index dilations[max_listed] = {}; ///< any list of `depth` dilations; used when its first is not 0
  int convolutions = 1;
  int blocks = 1;
  activation act = activation::none;
  residual residuals = residual::none;
  bool bias = false;
  bool skip = false;
  direction dir = direction::causal;
  layout order = layout::batch_channels_length;

  /// Convolutions one after another.
  TCNCA_HOST_DEVICE constexpr int layers() const { return depth * convolutions * blocks; }
  /// Sets of weights: two where a causal and an anti-causal stack are summed.
  TCNCA_HOST_DEVICE constexpr int halves() const { return dir == direction::bidirectional ? 2 : 1; }
  TCNCA_HOST_DEVICE constexpr bool listed() const { return dilations[0] != 0; }

  TCNCA_HOST_DEVICE constexpr index dilation(int layer) const {
    int const level = layer / convolutions % depth;
    if (listed()) return dilations[level];
    index d = 1;
    for (int i = 0; i < level; i++) d *= dilation_base;
    return d;
  }
  /// Samples of the past that a layer reads.
  TCNCA_HOST_DEVICE constexpr index history(int layer) const { return (taps - 1) * dilation(layer); }
  /// Samples that one output depends on: 1 + (taps - 1) * sum of the dilations of all layers.
  TCNCA_HOST_DEVICE constexpr index receptive_field() const { return 1 + history_before(layers()); }
  /// Sum of the histories of the layers before this one: where a layer's samples begin in a state.
  TCNCA_HOST_DEVICE constexpr index history_before(int layer) const {
    index sum = 0;
    for (int i = 0; i < layer; i++) sum += history(i);
    return sum;
  }
  /// How far a layer looks ahead, in half 0 (causal or symmetric) or half 1 (anti-causal).
  TCNCA_HOST_DEVICE constexpr index lead(int layer, int half) const {
    return half == 1 ? history(layer) : dir == direction::symmetric ? history(layer) / 2 : 0;
  }
  /// Layers a residual spans: 0 where there is none.
  TCNCA_HOST_DEVICE constexpr int span() const {
    return residuals == residual::level ? convolutions : residuals == residual::block ? convolutions * depth : 0;
  }
  TCNCA_HOST_DEVICE constexpr bool starts_span(int layer) const { return span() > 0 && layer % span() == 0; }
  TCNCA_HOST_DEVICE constexpr bool ends_span(int layer) const { return span() > 0 && layer % span() == span() - 1; }
};

}  // namespace tcnca
