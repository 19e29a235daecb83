// The gradients of a stack's parameters within one thread of the CPU: partial sums per lane, fp64 totals, one result
// per sequence.
#pragma once
#include "../../block/transpose.hpp"
#include "../../core/tensor.hpp"
#include "backward_plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Sums of one sequence, for the parameters of one direction and some channels. Rows: [layer][tap], then biases, then
/// omega, a vector each; rows up to a multiple of the vector follow. The order of all additions is fixed.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_vector_sums {
  using layout_type = conv_stack_vector_layout<T, Shape, Policy>;
  using A = accumulate_t<T>;
  static constexpr int W = layout_type::W, rows = layout_type::rows, padded_rows = round_up(rows, W);
  static constexpr int E = int(layout_type::E);

  A* sums;
  double* totals;  // [row][channel]; null for short sequences, whose partial sums are accurate enough

  TCNCA_HOST_DEVICE A* row(int r) const { return sums + r * W; }

  TCNCA_NOINLINE void clear() const {
    for (int i = 0; i < padded_rows; i++) store<W>(row(i), broadcast<W>(A(0)));
    for (int i = 0; i < padded_rows * E && totals; i++) totals[i] = 0;
  }
  /// Adds the partial sums to the totals and clears them.
  TCNCA_NOINLINE void add_to_totals() const {
    for_each_total([&](int i, A total) TCNCA_INLINE { totals[i] += double(total); });
    for (int i = 0; i < padded_rows; i++) store<W>(row(i), broadcast<W>(A(0)));
  }
  /// Writes the sums of one sequence and one direction to `result` [batch, parameters, channel] (see
  /// conv_stack_shape::parameters). with_omega: also the row of omega.
  TCNCA_NOINLINE void store_result(tensor_view<A, 3> const& result, index_t batch, index_t channel,
                                   index_t valid_channels, int direction_index, bool with_omega) const {
    constexpr int L = Shape.layers(), K = Shape.taps;
    A* const first = result.at(batch, direction_index * Shape.parameters_per_direction(), channel);
    index_t const stride = result.stride[1];
    for_each_total([&](int i, A total) TCNCA_INLINE {
      int const r = i / E, c = i % E;
      if (r >= rows || c >= valid_channels) return;
      if (totals) total = A(totals[i] + double(total));
      // The anti-causal direction has its taps in reverse order.
      int const parameter = direction_index == 1 && r < L * K ? r / K * K + K - 1 - r % K : r;
      if (!Shape.skip || r < rows - 1) first[parameter * stride + c] = total;
      else if (with_omega)
        *result.at(batch, Shape.directions() * Shape.parameters_per_direction(), channel + c) = total;
    });
  }

 private:
  /// f(row * E + channel, sum).
  template <class F>
  TCNCA_HOST_DEVICE void for_each_total(F const& f) const {
    for (int first = 0; first < padded_rows; first += W) {
      array<A, W * W> s;
      if constexpr (E == 1) {  // the lanes of W rows are added together
        array<pack<A, W>, W> lane;
        unroll<0, W>([&](auto i) TCNCA_INLINE { lane[i] = load<W>(const_cast<A const*>(row(first + int(i)))); });
        transpose(lane);
        for (int half = W / 2; half > 0; half /= 2)
          for (int i = 0; i < half; i++) lane[i] = lane[i] + lane[i + half];
        store<W>(s, lane[0]);
        for (int i = 0; i < W; i++) f(first + i, s[i]);
      } else {
        for (int i = 0; i < W * E; i++) f(first * E + i, row(first)[i]);
      }
    }
  }
};

}  // namespace tcnca::detail
