// The gradients of a stack's parameters within one group: partial sums per thread, fp64 totals, one result per
// sequence.
#pragma once
#include "../../block/pack.hpp"
#include "../../core/tensor.hpp"
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Sums of one sequence, for the parameters of one direction and some channels. Rows: [layer][tap], then biases, then
/// omega. Each thread has one pack per row, which only that thread changes. The order of all additions is fixed.
/// Members are called by all threads of the group.
template <class Group, element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_partial_sums {
  using tiling = conv_stack_tiling<T, Shape, Policy>;
  using A = accumulate_t<T>;
  static constexpr lanes Lanes = tiling::lane_order;
  static constexpr int rows = tiling::parameter_rows, width = Lanes.width, omega_row = rows - 1;

  Group group;
  A* sums;
  double* totals;  // [row][channel]; null for short sequences, whose partial sums are accurate enough

  /// Distance between two rows of one thread.
  TCNCA_HOST_DEVICE int row_stride() const { return group.size() * width; }
  /// The calling thread's pack of a row.
  TCNCA_HOST_DEVICE A* row(int r) const { return sums + (r * group.size() + group.rank()) * width; }
  TCNCA_HOST_DEVICE A* weight_row(int layer) const { return row(layer * Shape.taps); }
  TCNCA_HOST_DEVICE A* bias_row(int layer) const { return row(Shape.layers() * Shape.taps + layer); }

  /// Sets everything to zero. Does not synchronize.
  TCNCA_HOST_DEVICE void clear() const {
    for (int i = group.rank(); i < rows * group.size(); i += group.size())
      store<width>(sums + i * width, broadcast<width>(A(0)));
    for (int i = group.rank(); i < rows * Lanes.channels() && totals; i += group.size()) totals[i] = 0;
  }

  /// Adds the partial sums to the totals and clears them. Call it after a barrier; ends with one.
  TCNCA_HOST_DEVICE void add_to_totals() const {
    if constexpr (!Lanes.along_length && Group::size() == 1 && Lanes.packs == 1) {
      for (int i = 0; i < rows * width; i++) totals[i] += double(sums[i]), sums[i] = A(0);
    } else {
      for (int i = group.rank(); i < rows * Lanes.channels(); i += group.size())
        totals[i] += double(take(i / Lanes.channels(), i % Lanes.channels()));
    }
    group.sync();
  }

  /// Writes the sums of all threads for one sequence and one direction to `result` [batch, parameters, channel] (see
  /// conv_stack_shape::parameters). with_omega: also the row of omega. Starts with a barrier, does not end with one.
  TCNCA_HOST_DEVICE void store_result(tensor_view<A, 3> const& result, index_t batch, index_t channel,
                                      index_t valid_channels, int direction_index, bool with_omega) const {
    group.sync();
    for (int i = group.rank(); i < rows * Lanes.channels(); i += group.size()) {
      int const r = i / Lanes.channels(), c = i % Lanes.channels();
      bool const is_omega = Shape.skip && r == omega_row;
      if (c >= valid_channels || (is_omega && !with_omega)) continue;
      A total = take(r, c);
      if (totals) total = A(totals[i] + double(total));
      // The anti-causal direction has its taps in reverse order.
      int const tap = r % Shape.taps;
      bool const reversed = direction_index == 1 && r < Shape.layers() * Shape.taps;
      int const parameter = reversed ? r - tap + Shape.taps - 1 - tap : r;
      int const result_row = is_omega ? Shape.directions() * Shape.parameters_per_direction()
                                      : direction_index * Shape.parameters_per_direction() + parameter;
      *result.at(batch, result_row, channel + c) = total;
    }
  }

 private:
  /// The sum of a row over all threads for channel c. Clears the partial sums. Called by one thread.
  TCNCA_HOST_DEVICE A take(int r, int c) const {
    A total = 0;
    for (int thread = c / width; thread < group.size(); thread += Lanes.packs) {
      A* const partial = sums + size_t(r * group.size() + thread) * width;
      if constexpr (Lanes.along_length) {
        total += sum_lanes(load<width>(const_cast<A const*>(partial)));
        store<width>(partial, broadcast<width>(A(0)));
      } else {
        total += partial[c % width], partial[c % width] = A(0);
      }
    }
    return total;
  }
};

}  // namespace tcnca::detail
