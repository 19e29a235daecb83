// Which kernels compute a stack on a GPU, and in how many passes over memory. A constant of the shape, T and the
// policy.
#pragma once
#include <initializer_list>

#include "column/backward.hpp"
#include "column/forward.hpp"
#include "column/tensor_forward.hpp"
#include "pass.hpp"
#include "phase/backward.hpp"
#include "phase/forward.hpp"
#include "tensor/backward.hpp"
#include "tensor/forward.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A kernel that computes some consecutive layers in one pass.
enum class pass_kernel {
  tensor,         ///< Toeplitz products on tensor cores, all layers in a block's memory; 16-bit T
  phases,         ///< fp32 in registers, all layers in a block's memory
  tensor_column,  ///< one layer of a large dilation on tensor cores; 16-bit T
  column          ///< layers of large dilations, fp32 in registers
};

struct stack_pass {
  pass_kernel kernel = pass_kernel::phases;
  layer_range layers = {};
};

/// The passes of a direction; none if only the generic kernel can compute the stack.
struct stack_passes {
  static constexpr int most = 4;
  int count = 0;
  stack_pass pass[most] = {};
};

namespace detail {

/// The layers of a stack: the skip connection is a pass of its own.
constexpr conv_stack_shape without_skip(conv_stack_shape s) {
  s.skip = false;
  return s;
}

/// Shapes that the kernels of passes are written for. The others, among them those with post_activation, run in the
/// generic kernels.
constexpr bool has_pass_shape(conv_stack_shape const& s) {
  return s.dir == direction::causal && !s.skip && s.convolutions == 1 && s.residuals != residual::block &&
         !s.post_activation;
}

/// Smallest dilation of a column pass: it has as many columns as its first dilation, and one thread for each.
inline constexpr index_t least_column_dilation = 32;

template <element T, conv_stack_shape Shape, layer_range Layers>
constexpr bool has_forward_pass(pass_kernel k) {
  constexpr bool is_16_bit = sizeof(T) == 2, has_columns = Shape.dilation(Layers.first) >= least_column_dilation;
  switch (k) {
    case pass_kernel::tensor: return is_16_bit && has_tensor_forward_plan<T, Shape, Layers>;
    case pass_kernel::phases: return has_phase_forward_plan<T, Shape, Layers>;
    case pass_kernel::tensor_column:
      return has_columns && is_16_bit && has_tensor_column_forward_plan<T, Shape, Layers>;
    case pass_kernel::column: return has_columns && has_column_forward_plan<T, Shape, Layers>;
  }
  return false;
}
template <element T, conv_stack_shape Shape, layer_range Layers, target Target>
constexpr bool has_backward_pass(pass_kernel k) {
  constexpr int bytes = int(Target.shared_memory_bytes());
  switch (k) {
    case pass_kernel::tensor: return sizeof(T) == 2 && has_tensor_backward_plan<T, Shape, Layers, bytes>;
    case pass_kernel::phases:
      if constexpr (has_phase_backward_plan<T, Shape, Layers>) {
        return int(phase_backward_plan_of<T, Shape, Layers>.bytes()) <= bytes;
      } else {
        return false;
      }
    case pass_kernel::column: return has_column_backward_plan<T, Shape, Layers>;
    default: return false;
  }
}

/// Below so many taps in all layers both kinds of kernel are bound by memory, and fp32 in registers is more accurate.
inline constexpr int least_tensor_taps = 20;

/// Kernels that a pass may use.
struct kernel_choice {
  bool tensor = false, fp32 = true;
};

/// The longest range of layers from First that one pass can compute.
template <element T, conv_stack_shape Shape, kernel_choice Choice, int First, int Last = Shape.layers()>
constexpr stack_pass longest_forward_pass() {
  if constexpr (Last <= First) {
    return stack_pass{};
  } else {
    constexpr layer_range layers{First, Last};
    if (Choice.tensor)
      for (pass_kernel k : {pass_kernel::tensor, pass_kernel::tensor_column})
        if (has_forward_pass<T, Shape, layers>(k)) return {k, layers};
    if (Choice.fp32)
      for (pass_kernel k : {pass_kernel::phases, pass_kernel::column})
        if (has_forward_pass<T, Shape, layers>(k)) return {k, layers};
    return longest_forward_pass<T, Shape, Choice, First, Last - 1>();
  }
}

/// Passes from layer First on, each as long as possible: the first one of the kernels of Choice, later ones of those of
/// Later; in fp32 where there is none.
template <element T, conv_stack_shape Shape, kernel_choice Choice, kernel_choice Later = Choice, int First = 0>
constexpr stack_passes longest_passes(stack_passes done = stack_passes{}) {
  if constexpr (First == Shape.layers()) {
    return done;
  } else {
    constexpr stack_pass chosen = longest_forward_pass<T, Shape, Choice, First>();
    constexpr stack_pass next =
        chosen.layers.count() > 0 ? chosen : longest_forward_pass<T, Shape, kernel_choice{}, First>();
    if (next.layers.count() == 0 || done.count == stack_passes::most) return stack_passes{};
    done.pass[done.count++] = next;
    return longest_passes<T, Shape, Later, Later, max_of(next.layers.last, First + 1)>(done);
  }
}

/// Estimated issue slots for 32 elements. A pass on tensor cores takes the time that its 16-bit elements take at the
/// bandwidth of an H100; fp32 in registers takes about 1.3 instructions a tap.
constexpr int cost_of(stack_passes const& passes, int taps) {
  constexpr int slots_at_bandwidth = 39;
  int cost = 0;
  for (int i = 0; i < passes.count; i++) {
    stack_pass const& p = passes.pass[i];
    bool const tensor = p.kernel == pass_kernel::tensor || p.kernel == pass_kernel::tensor_column;
    cost += max_of(slots_at_bandwidth, tensor ? 0 : p.layers.count() * taps * 13 / 10 + 10);
  }
  return cost;
}

/// The passes of the forward direction.
template <element T, conv_stack_shape Shape, stack_kernels Allowed>
constexpr stack_passes forward_passes() {
  constexpr int taps = Shape.taps;
  if constexpr (Shape.skip) {  // its pass reads what the layers have written
    return sizeof(T) == 2 && Allowed == stack_kernels::fp32_between_layers
               ? stack_passes{}
               : forward_passes<T, without_skip(Shape), Allowed>();
  } else if constexpr (!has_pass_shape(Shape) || Allowed == stack_kernels::generic || sizeof(T) == 8) {
    return stack_passes{};
  } else if constexpr (sizeof(T) == 2 && Allowed == stack_kernels::automatic &&
                       Shape.layers() * taps >= least_tensor_taps) {
    constexpr kernel_choice any{true, true}, tensor{true, false};
    stack_passes best = longest_passes<T, Shape, any>();
    if (best.count == 1 && best.pass[0].kernel == pass_kernel::tensor) return best;
    for (stack_passes const& other : {longest_passes<T, Shape, tensor, any>(), longest_passes<T, Shape, tensor>()})
      if (other.count > 0 && (best.count == 0 || cost_of(other, taps) < cost_of(best, taps))) best = other;
    return best;
  } else {
    constexpr stack_passes passes = longest_passes<T, Shape, kernel_choice{}>();
    // Between passes activations are rounded to T.
    bool const rounds = passes.count > 1 && sizeof(T) == 2;
    return rounds && Allowed == stack_kernels::fp32_between_layers ? stack_passes{} : passes;
  }
}

/// A backward direction: one pass over all layers; or, split at layer `split`, a forward pass over the layers below it,
/// a column pass over those above it, and a backward pass over those below it.
struct stack_backward_passes {
  bool exists = false;
  int split = 0;
  pass_kernel low = pass_kernel::phases;        ///< backward over [0, split), or over all layers
  pass_kernel recompute = pass_kernel::phases;  ///< forward over [0, split)
};

template <element T, conv_stack_shape Shape, stack_kernels Allowed, target Target, int Split = Shape.layers()>
constexpr stack_backward_passes backward_passes_below() {
  if constexpr (Split == 0) {
    return stack_backward_passes{};
  } else {
    constexpr int layers = Shape.layers();
    constexpr bool tensor = sizeof(T) == 2 && Allowed == stack_kernels::automatic &&
                            layers * Shape.taps >= least_tensor_taps;  // as forward
    constexpr layer_range low{0, Split}, high{Split, layers};
    constexpr pass_kernel order[2] = {tensor ? pass_kernel::tensor : pass_kernel::phases, pass_kernel::phases};
    if constexpr (Split == layers) {
      for (pass_kernel k : order)
        if (has_backward_pass<T, Shape, low, Target>(k)) return {true, layers, k, k};
    } else if constexpr (has_backward_pass<T, Shape, high, Target>(pass_kernel::column)) {
      for (pass_kernel k : order)
        for (pass_kernel f : order)
          if (has_backward_pass<T, Shape, low, Target>(k) && has_forward_pass<T, Shape, low>(f))
            return {true, Split, k, f};
    }
    return backward_passes_below<T, Shape, Allowed, Target, Split - 1>();
  }
}

/// The passes of the backward direction, without states.
template <element T, conv_stack_shape Shape, stack_kernels Allowed, target Target>
constexpr stack_backward_passes backward_passes() {
  if constexpr (!has_pass_shape(Shape) || Allowed == stack_kernels::generic || sizeof(T) == 8) {
    return stack_backward_passes{};
  } else {
    stack_backward_passes const passes = backward_passes_below<T, Shape, Allowed, Target>();
    bool const rounds = passes.exists && passes.split < Shape.layers() && sizeof(T) == 2;
    return rounds && Allowed == stack_kernels::fp32_between_layers ? stack_backward_passes{} : passes;
  }
}

/// The agent of a forward pass, with the group that its plan asks for.
template <element T, conv_stack_shape Shape, pass_kernel Kernel, layer_range Layers, class Traits>
struct forward_pass;
template <element T, conv_stack_shape Shape, layer_range Layers, class Traits>
struct forward_pass<T, Shape, pass_kernel::tensor, Layers, Traits> {
  using group = typename Traits::template group<tensor_plan_of<Shape, Layers>.threads()>;
  using agent = conv_stack_tensor_forward_agent<group, T, Shape, Layers>;
};
template <element T, conv_stack_shape Shape, layer_range Layers, class Traits>
struct forward_pass<T, Shape, pass_kernel::phases, Layers, Traits> {
  using group = typename Traits::template group<phase_forward_plan<T, Shape, Layers>.threads>;
  using agent = conv_stack_phase_forward_agent<group, T, Shape, Layers>;
};
template <element T, conv_stack_shape Shape, layer_range Layers, class Traits>
struct forward_pass<T, Shape, pass_kernel::column, Layers, Traits> {
  using agent = conv_stack_column_forward_agent<typename Traits::template group<128>, T, Shape, Layers>;
};
template <element T, conv_stack_shape Shape, layer_range Layers, class Traits>
struct forward_pass<T, Shape, pass_kernel::tensor_column, Layers, Traits> {
  using agent = conv_stack_tensor_column_forward_agent<typename Traits::template group<128>, T, Shape, Layers>;
};
template <element T, conv_stack_shape Shape, pass_kernel Kernel, layer_range Layers, class Traits>
using forward_pass_agent = typename forward_pass<T, Shape, Kernel, Layers, Traits>::agent;

/// The agent of a backward pass.
template <element T, conv_stack_shape Shape, pass_kernel Kernel, layer_range Layers, class Traits>
struct backward_pass;
template <element T, conv_stack_shape Shape, layer_range Layers, class Traits>
struct backward_pass<T, Shape, pass_kernel::tensor, Layers, Traits> {
  static constexpr int bytes = int(Traits::target.shared_memory_bytes());
  using group = typename Traits::template group<tensor_backward_plan_of<Shape, Layers, bytes>.threads()>;
  using agent = conv_stack_tensor_backward_agent<group, T, Shape, Layers, bytes>;
};
template <element T, conv_stack_shape Shape, layer_range Layers, class Traits>
struct backward_pass<T, Shape, pass_kernel::phases, Layers, Traits> {
  using group = typename Traits::template group<phase_backward_plan_of<T, Shape, Layers>.threads>;
  using agent = conv_stack_phase_backward_agent<group, T, Shape, Layers>;
};
template <element T, conv_stack_shape Shape, layer_range Layers, class Traits>
struct backward_pass<T, Shape, pass_kernel::column, Layers, Traits> {
  using agent = conv_stack_column_backward_agent<typename Traits::template group<128>, T, Shape, Layers>;
};
template <element T, conv_stack_shape Shape, pass_kernel Kernel, layer_range Layers, class Traits>
using backward_pass_agent = typename backward_pass<T, Shape, Kernel, Layers, Traits>::agent;

}  // namespace detail

}  // namespace tcnca
