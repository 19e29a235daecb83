// The compile-time description of a stack of dilated convolutions.
#pragma once
#include "../core/config.hpp"
#include "../core/options.hpp"

namespace tcnca {

/// Up to 16 dilations: {1, 2, 4}. Plain members, because nvcc does not support an array inside a template argument.
struct dilation_list {
  static constexpr int capacity = 16;
  index_t d0 = 0, d1 = 0, d2 = 0, d3 = 0, d4 = 0, d5 = 0, d6 = 0, d7 = 0, d8 = 0, d9 = 0, d10 = 0, d11 = 0, d12 = 0,
          d13 = 0, d14 = 0, d15 = 0;

  TCNCA_HOST_DEVICE constexpr index_t operator[](int i) const {
    switch (i) {
      case 0: return d0;
      case 1: return d1;
      case 2: return d2;
      case 3: return d3;
      case 4: return d4;
      case 5: return d5;
      case 6: return d6;
      case 7: return d7;
      case 8: return d8;
      case 9: return d9;
      case 10: return d10;
      case 11: return d11;
      case 12: return d12;
      case 13: return d13;
      case 14: return d14;
      case 15: return d15;
    }
    return 0;
  }
  /// The list of the first `count` dilations in memory, of at most `capacity`.
  TCNCA_HOST_DEVICE static constexpr dilation_list of(index_t const* first, int count) {
    index_t d[capacity] = {};
    for (int i = 0; i < count && i < capacity; i++) d[i] = first[i];
    return {d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7], d[8], d[9], d[10], d[11], d[12], d[13], d[14], d[15]};
  }
  TCNCA_HOST_DEVICE friend constexpr bool operator==(dilation_list const& a, dilation_list const& b) {
    for (int i = 0; i < capacity; i++)
      if (a[i] != b[i]) return false;
    return true;
  }
  /// Number of dilations: all up to the last that is not 0.
  TCNCA_HOST_DEVICE constexpr int count() const {
    int n = capacity;
    while (n > 0 && (*this)[n - 1] == 0) n--;
    return n;
  }
};

/// A stack of dilated depthwise convolutions. Convolution i computes from its input a:
///   pre[c, t] = bias[i, c] + sum_k weight[i, k, c] a[c, t + look_ahead_i - k d_i],
///   output    = act(pre) (+ the input of its residual), or with post_activation
///   output    = act(pre (+ the input of its residual)),
/// with look_ahead 0 (causal) or (taps - 1) d / 2 (symmetric), and a = 0 outside the sequence. Tap 0 is the newest
/// sample (PyTorch stores taps in the opposite order).
/// The stack has `blocks` blocks of `depth` levels; a level has `convolutions` convolutions of the same dilation.
/// Dilations restart in each block.
/// A bidirectional stack is the sum of a causal and an anti-causal one, which reads a[c, t + k d]. Each direction has
/// its own weights, the causal ones first.
/// With `skip`, y = silu(stack(x) + omega x), as MEGA does after its EMA.
struct conv_stack_shape {
  int taps = 4;
  int depth = -1;                ///< -1: the number of dilations in the list, or 1 without a list
  int dilation_base = 2;         ///< level l has dilation dilation_base^l, unless a list is given
  dilation_list dilations = {};  ///< one for each level; a `depth` other than -1 must equal their number
  int convolutions = 1;
  int blocks = 1;
  activation act = activation::none;
  residual residuals = residual::none;
  bool post_activation = false;  ///< a residual is added before the last activation it spans, not after it
  bool bias = false;
  bool skip = false;
  direction dir = direction::causal;
  layout order = layout::batch_channels_length;
  parameter_type weights = parameter_type::element;  ///< of weight, bias and omega

  /// Equality of all fields. Shapes that describe the same stack in different ways are not equal.
  TCNCA_HOST_DEVICE friend constexpr bool operator==(conv_stack_shape const& a, conv_stack_shape const& b) {
    return a.taps == b.taps && a.depth == b.depth && a.dilation_base == b.dilation_base && a.dilations == b.dilations &&
           a.convolutions == b.convolutions && a.blocks == b.blocks && a.act == b.act && a.residuals == b.residuals &&
           a.post_activation == b.post_activation && a.bias == b.bias && a.skip == b.skip && a.dir == b.dir &&
           a.order == b.order && a.weights == b.weights;
  }
  template <class F>
  constexpr void fields(F f) const {
    f("taps", taps), f("depth", depth), f("dilation_base", dilation_base), f("dilations", dilations);
    f("convolutions", convolutions), f("blocks", blocks), f("act", act), f("residuals", residuals);
    f("post_activation", post_activation), f("bias", bias), f("skip", skip), f("dir", dir), f("order", order);
    f("weights", weights);
  }

  /// Levels of a block.
  TCNCA_HOST_DEVICE constexpr int levels() const { return depth != -1 ? depth : listed() ? dilations.count() : 1; }
  /// Convolutions applied one after another.
  TCNCA_HOST_DEVICE constexpr int layers() const { return levels() * convolutions * blocks; }
  /// Two for a bidirectional stack.
  TCNCA_HOST_DEVICE constexpr int directions() const { return dir == direction::bidirectional ? 2 : 1; }
  /// The first extent of weight and bias.
  TCNCA_HOST_DEVICE constexpr int weight_sets() const { return directions() * layers(); }
  TCNCA_HOST_DEVICE constexpr bool listed() const { return dilations.count() > 0; }

  TCNCA_HOST_DEVICE constexpr index_t dilation(int layer) const {
    int const level = layer / convolutions % levels();
    if (listed()) return dilations[level];
    index_t d = 1;
    for (int i = 0; i < level; i++) d *= dilation_base;
    return d;
  }
  /// Positions between the oldest and the newest input of one output of a layer.
  TCNCA_HOST_DEVICE constexpr index_t history(int layer) const { return (taps - 1) * dilation(layer); }
  /// Inputs that one output depends on: 1 + (taps - 1) * sum of the dilations of all layers.
  TCNCA_HOST_DEVICE constexpr index_t receptive_field() const { return 1 + history_before(layers()); }
  /// Sum of the histories of the layers before this one; also the first slot of the layer in a state.
  TCNCA_HOST_DEVICE constexpr index_t history_before(int layer) const {
    index_t sum = 0;
    for (int i = 0; i < layer; i++) sum += history(i);
    return sum;
  }
  /// Positions by which the newest input of an output is ahead of it. direction_index is 0 (causal or symmetric) or 1
  /// (anti-causal).
  TCNCA_HOST_DEVICE constexpr index_t look_ahead(int layer, int direction_index) const {
    return direction_index == 1 ? history(layer) : dir == direction::symmetric ? history(layer) / 2 : 0;
  }
  /// Layers that a residual connection spans; 0 without residuals.
  TCNCA_HOST_DEVICE constexpr int residual_span() const {
    return residuals == residual::level ? convolutions : residuals == residual::block ? convolutions * levels() : 0;
  }
  TCNCA_HOST_DEVICE constexpr bool starts_residual(int layer) const {
    return residual_span() > 0 && layer % residual_span() == 0;
  }
  TCNCA_HOST_DEVICE constexpr bool ends_residual(int layer) const {
    return residual_span() > 0 && layer % residual_span() == residual_span() - 1;
  }

  /// Parameters per channel of one direction (taps, then biases), and of the stack (both directions, then omega).
  TCNCA_HOST_DEVICE constexpr int parameters_per_direction() const { return layers() * (taps + (bias ? 1 : 0)); }
  TCNCA_HOST_DEVICE constexpr int parameters() const {
    return directions() * parameters_per_direction() + (skip ? 1 : 0);
  }
};

}  // namespace tcnca
