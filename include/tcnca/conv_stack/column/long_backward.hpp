// The backward pass of a column whose history is too long for the registers of a thread.
#pragma once
#include "../../block/activation.hpp"
#include "plan.hpp"
#include "rows.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// One column of a thread whose history is in shared memory. Sums along the taps move a window of 8 rows through it.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct column_long_backward
    : column_rows<Shape.dilation(Layers.first), 8, Shape.order == layout::batch_channels_length> {
  using A = accumulate_t<T>;
  using params_type = conv_stack_backward_pass_params<T, parameter_t<T, Shape.weights>>;
  static constexpr conv_stack_column_plan plan = make_column_backward_plan(Shape, Layers);
  static constexpr index_t d = Shape.dilation(Layers.first);
  static constexpr int rows = 8, taps = Shape.taps, history = taps - 1, layer = Layers.first;
  static constexpr int parameters = taps + (Shape.bias ? 1 : 0);
  static constexpr bool along_length = Shape.order == layout::batch_channels_length;
  static constexpr bool has_derivative = Shape.act != activation::none;
  using base = column_rows<d, rows, along_length>;
  using base::begin, base::first, base::blocks, base::row_0, base::row_step;
  static constexpr int granules = max_of(1, plan.granules), threads = Group::size();
  static constexpr int blocks_per_total = 1024 / rows;

  params_type const& params;
  double* total;                 // the thread's, of parameter 0
  A* ring;                       // the thread's slot 0: inputs, then gradients of the layer's sums
  array<int, granules> granule;  // offsets of the granules, from that of the block's first row on
  T const *x, *grad_y;           // row 0 of the block
  T* grad_x;
  array<T, rows> next_x, next_grad_y;
  A bias;
  array<A, taps> weight;
  array<A, parameters> sum;
  array<A, rows> in, gradient, g;  // of the block; gradient: of the outputs

  TCNCA_HOST_DEVICE column_long_backward(Group group, params_type const& p, index_t batch, index_t channel,
                                         index_t column, double* group_totals)
      : base(p.x.extent[2], column),
        params(p),
        total(group_totals + group.rank()),
        ring(reinterpret_cast<A*>(group_totals + parameters * threads) + group.rank()),
        x(row_0(p.x, batch, channel)),
        grad_y(row_0(p.grad_y, batch, channel)),
        grad_x(row_0(p.grad_x, batch, channel)),
        bias(Shape.bias ? to_accumulate(*p.bias.at(layer, channel)) : A(0)) {
    TCNCA_UNROLL
    for (int k = 0; k < taps; k++) weight[k] = to_accumulate(*p.weight.at(layer, k, channel));
  }

  TCNCA_HOST_DEVICE void walk() {
    if (params.x.extent[2] == 0) return;
    TCNCA_UNROLL
    for (int q = 0; q < granules; q++) granule[q] = q * rows * threads;
    for (int s = 0; s < 2 * plan.shared_slots; s++) ring[s * threads] = A(0);
    load_rows(first);
    clear_sums();
    for (int b = 0; b < blocks; b++) {
      block(b);
      if (b % blocks_per_total == blocks_per_total - 1) add_to_totals();
    }
    add_to_totals();
    // The gradients of the last inputs.
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) in[j] = g[j] = A(0);
    for (int b = blocks; b < blocks + granules; b++) store_gradients(b);
  }

  /// Loads the rows of the block that are not absent; those are its first ones.
  TCNCA_HOST_DEVICE void load_rows(int absent) {
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) {
      next_x[j] = j >= absent ? x[j * row_step(params.x)] : T{};
      next_grad_y[j] = j >= absent ? grad_y[j * row_step(params.grad_y)] : T{};
    }
  }
  TCNCA_HOST_DEVICE void block(int b) {
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) in[j] = to_accumulate(next_x[j]), gradient[j] = to_accumulate(next_grad_y[j]);
    x += rows * row_step(params.x), grad_y += rows * row_step(params.grad_y);
    load_rows(b + 1 < blocks ? 0 : rows);
    array<A, rows> pre;
    if constexpr (has_derivative) {
      TCNCA_UNROLL
      for (int j = 0; j < rows; j++) pre[j] = bias;
      along_taps([&](int k, int j, A v) TCNCA_INLINE { pre[j] = fma_one(weight[k], v, pre[j]); });
    }
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) {
      g[j] = gradient[j];
      if constexpr (has_derivative) {
        g[j] = (pack<A, 1>{g[j]} * activate<Shape.act>(pack<A, 1>{pre[j]}).derivative).lane(0);
      }
      if constexpr (Shape.bias) { sum[taps] += g[j]; }
    }
    along_taps([&](int k, int j, A v) TCNCA_INLINE { sum[k] = fma_one(g[j], v, sum[k]); });
    store_gradients(b);
  }
  /// f(k, j, input of row j - k) for all taps and rows of the block.
  template <class F>
  TCNCA_HOST_DEVICE void along_taps(F f) const {
    array<A, rows> window;  // row r in slot r mod `rows`
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) window[j] = in[j];
    TCNCA_UNROLL
    for (int k = 0; k < taps; k++) {
      TCNCA_UNROLL
      for (int j = 0; j < rows; j++) f(k, j, window[(j - k + 64) % rows]);
      if (k < history) window[(63 - k) % rows] = ring[offset(-1 - k)];
    }
  }
  /// Writes the gradients of the inputs `history` rows before the block's, which are complete now, and moves on by a
  /// block.
  TCNCA_HOST_DEVICE void store_gradients(int b) {
    A* const grads = ring + plan.shared_slots * threads;
    array<A, rows> result, window;
    auto const load_row = [&](int row) TCNCA_INLINE { return row < 0 ? grads[offset(row)] : g[max_of(0, row)]; };
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) result[j] = A(0), window[(j - history + 64) % rows] = load_row(j - history);
    TCNCA_UNROLL
    for (int k = 0; k < taps; k++) {
      TCNCA_UNROLL
      for (int j = 0; j < rows; j++) result[j] = fma_one(weight[k], window[(j - history + k + 64) % rows], result[j]);
      if (k < history) window[(k - history + 64) % rows] = load_row(k - history + rows);
    }
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) {
      int const row = b * rows + j - history;
      if (row >= first && row < blocks * rows) {
        // grad_y has moved on by a block.
        if constexpr (Shape.residuals == residual::level) {
          result[j] += to_accumulate(grad_y[(j - history - (b < blocks ? rows : 0)) * row_step(params.grad_y) +
                                            (b < blocks ? 0 : (b - blocks) * rows * row_step(params.grad_y))]);
        }
        grad_x[(j - history) * row_step(params.grad_x)] = from_accumulate<T>(result[j]);
      }
    }
    grad_x += rows * row_step(params.grad_x);
    TCNCA_UNROLL
    for (int j = 0; j < rows; j++) ring[offset(j)] = in[j], grads[offset(j)] = g[j];
    int const oldest = granule[0];
    TCNCA_UNROLL
    for (int q = 0; q + 1 < granules; q++) granule[q] = granule[q + 1];
    granule[granules - 1] = oldest;
  }
  /// Offset of a row in a ring; -shared_slots <= row < rows.
  TCNCA_HOST_DEVICE int offset(int row) const {
    int const n = (row + plan.shared_slots) / rows;
    return granule[n % granules] + (row + plan.shared_slots) % rows * threads;
  }
  TCNCA_HOST_DEVICE static A fma_one(A a, A b, A c) { return fma(pack<A, 1>{a}, pack<A, 1>{b}, pack<A, 1>{c}).lane(0); }
  TCNCA_HOST_DEVICE void clear_sums() {
    TCNCA_UNROLL
    for (int k = 0; k < parameters; k++) sum[k] = A(0);
  }
  TCNCA_HOST_DEVICE void add_to_totals() {
    TCNCA_UNROLL
    for (int k = 0; k < parameters; k++) total[k * threads] += double(sum[k]);
    clear_sums();
  }
};

}  // namespace tcnca::detail
