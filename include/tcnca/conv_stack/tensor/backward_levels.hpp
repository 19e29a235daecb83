// The levels of the tensor-core backward kernel: level l forward on a tile, level l backward on a window.
#pragma once
#include "backward_warps.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Levels on the units of a warp. All functions are called by whole warps.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers, int MaxBytes>
struct tensor_backward_levels : tensor_backward_warps<Group, T, Shape, Layers, MaxBytes> {
  using base = tensor_backward_warps<Group, T, Shape, Layers, MaxBytes>;
  static constexpr tensor_backward_plan plan = base::plan;
  static constexpr int tile = base::tile, depth = base::depth;
  static constexpr bool has_activation = base::has_activation, is_relu = base::is_relu,
                        has_residual = base::has_residual, keeps_sums = base::keeps_sums;
  template <int L>
  static constexpr tensor_backward_level level = plan.level[L];
  using base::base;

  // Accumulators of the gradients: 16 x 8 tiles G'X of weights; of biases, the sums of each line in all columns.
  array<float[4], plan.sums> sums_;
  array<float[4], depth> bias_sums_;

  TCNCA_HOST_DEVICE void clear_sums() {
    unroll<0, 4 * plan.sums>([&](auto i) TCNCA_INLINE { sums_[i / 4][i % 4] = 0; });
    unroll<0, 4 * depth>([&](auto i) TCNCA_INLINE { bias_sums_[i / 4][i % 4] = 0; });
  }

  /// Level L forward on tile n, level depth - 1 - L backward on its window n - 1. All loads come first, so that the two
  /// sequences of instructions overlap. grad_x(u, blocks) stores the gradients of the pass's inputs of unit u.
  template <int L, class Store>
  TCNCA_HOST_DEVICE void phase(int n, Store grad_x) {
    constexpr int B = depth - 1 - L, window = -tile - level<B>.lag;
    constexpr bool is_last = L + 1 == depth, computes = !is_last || has_activation;
    typename base::template loaded_blocks<L> inputs[base::template units<L>];
    typename base::template unit_blocks<L> grad_y[base::template units<L>];
    typename base::template loaded_blocks<B> grads[base::template units<B>];
    typename base::template unit_blocks<B> x[base::template units<B>];
    unroll<0, base::template units<L>>([&](auto u) TCNCA_INLINE {
      if constexpr (computes) { this->template load_blocks<L, u, level<L>.input, 0, -level<L>.history>(inputs[u]); }
      if constexpr (is_last) { this->template load_blocks<L, u, plan.grad_y, 0, 0>(grad_y[u]); }
    });
    unroll<0, base::template units<B>>([&](auto u) TCNCA_INLINE {
      this->template load_blocks<B, u, level<B>.gradient, window, 0>(grads[u]);
      this->template load_blocks<B, u, level<B>.input, window, 0>(x[u]);
    });
    unroll<0, base::template units<L>>([&](auto u) TCNCA_INLINE { forward<L, u>(inputs[u], grad_y[u]); });
    unroll<0, base::template units<B>>([&](auto u) TCNCA_INLINE { backward<B, u>(n - 1, grads[u], x[u], grad_x); });
  }

  /// Computes a unit of the newest tile of level L: from its inputs q those of the next level; of the last level, the
  /// gradients of its sums from those of its outputs.
  template <int L, int U>
  TCNCA_HOST_DEVICE void forward(typename base::template loaded_blocks<L>& q,
                                 typename base::template unit_blocks<L> const& grad_y) const {
    constexpr bool is_last = L + 1 == depth;
    typename base::template unit_blocks<L> y, sums;
    if constexpr (is_last && !has_activation) {
      this->template store_blocks<L, U, level<L>.gradient, 0>(grad_y);
    } else {
      if constexpr (plan.stores_sums && L > 0) {
        unroll<0, 2 * base::template loaded<L>>(
            [&](auto i) TCNCA_INLINE { q[i / 2][i % 2] = base::activated(q[i / 2][i % 2]); });
      }
      float bias[4] = {};
      if constexpr (Shape.bias) {
        uint32 words[4];
        this->warp.load_shared(words, this->shared + uint32(plan.weights + 128 * plan.products + 16 * L));
        __builtin_memcpy(bias, words, 16);
      }
      unroll<0, level<L>.blocks>([&](auto block) TCNCA_INLINE {
        constexpr int b = block;
        float c[4];
        this->template convolve<L, b, level<L>.history % 2, false>(c, bias, q);
        unroll<0, 2>([&](auto half) TCNCA_INLINE {
          float const low = c[2 * half], high = c[2 * half + 1];
          if constexpr (is_last) {
            uint32 const g = grad_y[b][half];
            y[b][half] = is_relu ? g & base::positive(base::activated(low, high))
                                 : base::rounded(element_of_pair<T>(g, 0) * base::derivative(low),
                                                 element_of_pair<T>(g, 1) * base::derivative(high));
          } else if constexpr (plan.stores_sums) {
            y[b][half] = base::rounded(low, high);
          } else if constexpr (has_residual) {
            uint32 const x = q[b + level<L>.history][half];
            y[b][half] = base::rounded(base::activation_of(low) + element_of_pair<T>(x, 0),
                                       base::activation_of(high) + element_of_pair<T>(x, 1));
            if constexpr (keeps_sums) {
              sums[b][half] = is_relu ? base::activated(low, high) : base::rounded(low, high);
            }
          } else {
            y[b][half] = base::activated(low, high);
          }
        });
      });
      if constexpr (is_last) {
        this->template store_blocks<L, U, level<L>.gradient, 0>(y);
      } else {
        this->template store_blocks<L, U, level<L + !is_last>.input, 0>(y);
        if constexpr (keeps_sums) { this->template store_blocks<L, U, level<L + !is_last>.sum, 0>(sums); }
      }
    }
    if constexpr (is_last && keeps_sums) { this->template store_blocks<L, U, level<L>.output_gradient, 0>(grad_y); }
  }

  /// Computes a unit of window n of level L: from its inputs x and the gradients of its sums those of the weights, and
  /// those of the sums of the level below or of the pass's inputs.
  template <int L, int U, class Store>
  TCNCA_HOST_DEVICE void backward(int n, typename base::template loaded_blocks<L> const& grads,
                                  typename base::template unit_blocks<L>& x, Store grad_x) {
    constexpr int window = -tile - level<L>.lag, B = level<L>.blocks;
    constexpr int below = L > 0 ? L - 1 : 0;
    int const start = n * tile - level<L>.lag;    // from begin_
    typename base::template unit_blocks<L> sums;  // for the derivative of the activation
    unroll<0, 2 * B>([&](auto i) TCNCA_INLINE {
      sums[i / 2][i % 2] = x[i / 2][i % 2];
      if constexpr (plan.stores_sums && L > 0) { x[i / 2][i % 2] = base::activated(x[i / 2][i % 2]); }
    });
    if constexpr (keeps_sums && L > 0) { this->template load_blocks<L, U, level<L>.sum, window, 0>(sums); }
    add_to_sums<L>(grads, x);
    typename base::template unit_blocks<L> output_grads, y, outputs;
    if constexpr (keeps_sums) { this->template load_blocks<L, U, level<L>.output_gradient, window, 0>(output_grads); }
    unroll<0, B>([&](auto block) TCNCA_INLINE {
      constexpr int b = block;
      float c[4], zero[4] = {};
      this->template convolve<L, b, 0, true>(c, zero, grads);
      unroll<0, 2>([&](auto half) TCNCA_INLINE {
        float low = c[2 * half], high = c[2 * half + 1];
        if constexpr (has_residual) {
          uint32 const g = keeps_sums ? output_grads[b][half] : grads[b][half];
          low += element_of_pair<T>(g, 0), high += element_of_pair<T>(g, 1);
        }
        uint32 const s = sums[b][half];
        if constexpr (L > 0 && has_activation && !is_relu) {
          y[b][half] = base::rounded(low * base::derivative(element_of_pair<T>(s, 0)),
                                     high * base::derivative(element_of_pair<T>(s, 1)));
        } else {
          y[b][half] = base::rounded(low, high);
          if constexpr (L > 0 && is_relu) { y[b][half] &= base::positive(s); }
        }
        if constexpr (keeps_sums && L > 0) { outputs[b][half] = base::rounded(low, high); }
      });
    });
    if constexpr (L > 0) {
      if constexpr (!is_relu || has_residual) {  // else the sums before the walk, zero, are the mask
        if (start < 0) {
          unroll<0, 2 * B>([&](auto i) TCNCA_INLINE {
            int const t = start + base::template unit_distance<L, U> + this->template unit_position<L>();
            int const first = t + this->template element_position<L>(i / 2, i % 2, 0),
                      second = t + this->template element_position<L>(i / 2, i % 2, 1);
            y[i / 2][i % 2] &= (first >= 0 ? 0xffffu : 0) | (second >= 0 ? 0xffff0000u : 0);
          });
        }
      }
      this->template store_blocks<L, U, level<below>.gradient, window>(y);
      if constexpr (keeps_sums) { this->template store_blocks<L, U, level<below>.output_gradient, window>(outputs); }
    } else {
      grad_x(constant<U>{}, y);
    }
  }

  /// Adds the products of a unit's inputs and gradients to the sums of level L.
  template <int L>
  TCNCA_HOST_DEVICE void add_to_sums(typename base::template loaded_blocks<L> const& grads,
                                     typename base::template unit_blocks<L> const& x) {
    if constexpr (Shape.bias) {
      unroll<0, level<L>.blocks / 2>([&](auto pair) TCNCA_INLINE {
        constexpr int b = 2 * pair;
        this->warp.template multiply<T>(bias_sums_[L], bias_sums_[L], grads[b][0], grads[b][1], grads[b + 1][0],
                                        grads[b + 1][1], base::ones, base::ones);
      });
    }
    typename base::template loaded_blocks<L> g;
    unroll<0, 2 * base::template loaded<L>>(
        [&](auto i) TCNCA_INLINE { g[i / 2][i % 2] = this->warp.transpose_matrix(grads[i / 2][i % 2]); });
    unroll<0, level<L>.blocks>([&](auto block) TCNCA_INLINE {
      constexpr int b = block;
      uint32 const x0 = this->warp.transpose_matrix(x[b][0]), x1 = this->warp.transpose_matrix(x[b][1]);
      unroll<0, level<L>.tiles()>([&](auto m) TCNCA_INLINE {
        // Rows beyond the history are not read from the sums.
        constexpr int first = b + 2 * m, second = min_of(first + 1, base::template loaded<L> - 1);
        float(&sums)[4] = sums_[level<L>.sums + m];
        this->warp.template multiply<T>(sums, sums, g[first][0], g[second][0], g[first][1], g[second][1], x0, x1);
      });
    });
  }
};

}  // namespace tcnca::detail
