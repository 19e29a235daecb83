// The levels of a register-phase backward kernel whose dilations are multiples of the number of columns: a thread keeps
// the windows of its columns in registers while it walks along the sequence.
#pragma once
#include "backward_group.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The registers of a column. The arrays are the inputs and the gradients of the sums of each level, the gradients of
/// its outputs (with a residual and an activation), and the derivatives of the level before (derivative::sum). Each has
/// `history` rows before those of the tile.
enum class phase_rows { x, grad, out, derivative };

template <element T, conv_stack_shape Shape, layer_range Layers>
struct phase_column_layout {
  static constexpr auto plan = phase_backward_plan_of<T, Shape, Layers>;
  static constexpr phase_derivative derivative = phase_derivative_of(Shape);
  static constexpr int first = plan.first_column_level, levels = Layers.count(), arrays = 4 * (levels - first);

  TCNCA_HOST_DEVICE static constexpr phase_rows array_of(int n) { return phase_rows(n % 4); }
  TCNCA_HOST_DEVICE static constexpr int level_of(int n) { return first + n / 4; }
  TCNCA_HOST_DEVICE static constexpr int history_of(int n) {
    auto const level = plan.level[level_of(n)];
    int const lag = level.lag / plan.columns, delay = level.history / plan.columns;
    switch (array_of(n)) {
      case phase_rows::x: return lag;
      case phase_rows::grad: return delay;
      case phase_rows::out: return derivative == phase_derivative::taps ? delay : 0;
      case phase_rows::derivative:
        return derivative == phase_derivative::sum && level_of(n) == first && first > 0 ? lag : 0;
    }
    return 0;
  }
  /// First register of array n, with `tile_rows` rows of the tile in each.
  TCNCA_HOST_DEVICE static constexpr int offset_of(int n, int tile_rows) {
    int offset = 0;
    for (int i = 0; i < n; i++) offset += history_of(i) + tile_rows;
    return offset;
  }
  /// Register of a row of the tile (negative: before it).
  TCNCA_HOST_DEVICE static constexpr int index_of(phase_rows array, int level, int row) {
    int const n = 4 * (level - first) + int(array);
    return offset_of(n, plan.rows) + history_of(n) + row;
  }
};

template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct phase_backward_columns : phase_backward_group<Group, T, Shape, Layers> {
  using base = phase_backward_group<Group, T, Shape, Layers>;
  using base::plan, base::levels, base::taps, base::derivative, base::has_residual, base::threads, base::group,
      base::shared;
  using layout_type = phase_column_layout<T, Shape, Layers>;
  using A = float;
  static constexpr int first = plan.first_column_level, rows = max_of(1, plan.rows), columns = plan.columns,
                       columns_per_thread = plan.columns_per_thread, arrays = layout_type::arrays,
                       history_registers = layout_type::offset_of(arrays, 0),
                       registers = max_of(1, layout_type::offset_of(arrays, rows));
  template <phase_rows Array, int Level, int Row>
  static constexpr int index = layout_type::index_of(Array, Level, Row);

  array<A, max_of(1, history_registers* columns_per_thread)> history;
  array<A, levels*(taps + 1)> parameter_sum;  // of this thread: weights [level][tap], then biases

  TCNCA_HOST_DEVICE phase_backward_columns(Group g, A* memory) : base(g, memory) {}

  TCNCA_HOST_DEVICE void clear_history() {
    unroll<0, history_registers * columns_per_thread>([&](auto i) TCNCA_INLINE { history[i] = A(0); });
  }

  /// Forward and backward of the column levels for the tile that begins at `begin`. grad_y: of the tile, of the
  /// thread's columns. Positions outside of [sum_begin, sum_end) do not count for the sums of parameters. emit(position
  /// in the tile of window `lag`, gradient): for level 0.
  template <class Emit>
  TCNCA_HOST_DEVICE void column_levels(array<A, phase_outputs> const& grad_y, int begin, int length, int sum_begin,
                                       int sum_end, Emit emit) {
    constexpr int most = plan.level[first].lag;
    bool const interior = begin - most >= sum_begin && begin + plan.tile <= sum_end;
    unroll<0, columns_per_thread>([&](auto c) TCNCA_INLINE {
      constexpr int own = decltype(c)::value * history_registers;
      int const column = group.rank() + int(c) * threads;
      array<A, registers> v;
      unroll<0, arrays>([&](auto n) TCNCA_INLINE {
        constexpr int from = own + layout_type::offset_of(n, 0), to = layout_type::offset_of(n, rows),
                      count = layout_type::history_of(n);
        unroll<0, count>([&](auto i) TCNCA_INLINE { v[to + int(i)] = history[from + int(i)]; });
      });
      load_inputs(v, column);
      forward_rows(v, grad_y, int(c) * rows, begin + column, length, interior);
      unroll<first, levels>([&](auto reversed) TCNCA_INLINE {
        constexpr int level = levels - 1 - (decltype(reversed)::value - first);
        backward_rows<level>(v, begin + column, length, sum_begin, sum_end, interior, column, emit);
      });
      unroll<0, arrays>([&](auto n) TCNCA_INLINE {
        constexpr int to = own + layout_type::offset_of(n, 0), from = layout_type::offset_of(n, rows) + rows,
                      count = layout_type::history_of(n);
        unroll<0, count>([&](auto i) TCNCA_INLINE { history[to + int(i)] = v[from + int(i)]; });
      });
    });
  }

 private:
  TCNCA_HOST_DEVICE void load_inputs(array<A, registers>& v, int column) const {
    constexpr phase_buffer buffer = plan.level[first].x;
    A const* const from = this->template at_offset<buffer, 0>(base::bytes_of(column));
    unroll<0, rows>([&](auto m) TCNCA_INLINE {
      constexpr int i = index<phase_rows::x, first, decltype(m)::value>, distance = phase_padded(columns) * int(m);
      A const stored = from[distance];
      v[i] = base::template input_of<first>(stored);
      if constexpr (base::derivative == phase_derivative::sum && first > 0) {
        v[index<phase_rows::derivative, first, decltype(m)::value>] = base::derivative_at(stored);
      }
    });
  }

  /// The sum of level Level at a row of its inputs.
  template <int Level, int Row>
  TCNCA_HOST_DEVICE A sum_at(array<A, registers> const& v, array<A, round_up(taps, 4)> const& w) const {
    constexpr int step = plan.level[Level].dilation / columns;
    A sum = this->template bias_of<Level>();
    unroll<0, taps>([&](auto k) TCNCA_INLINE {
      constexpr int i = index<phase_rows::x, Level, Row - decltype(k)::value * step>;
      sum = multiply_add(w[k], v[i], sum);
    });
    return sum;
  }

  TCNCA_HOST_DEVICE void forward_rows(array<A, registers>& v, array<A, phase_outputs> const& grad_y, int first_grad,
                                      int position, int length, bool interior) const {
    unroll<first, levels>([&](auto l) TCNCA_INLINE {
      constexpr int level = decltype(l)::value;
      constexpr bool last = level + 1 == levels;
      array<A, round_up(taps, 4)> w;
      if constexpr (!last || Shape.act != activation::none) { this->template load_weights<level>(w); }
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        constexpr int row = decltype(m)::value;
        if constexpr (!last) {
          A const y = base::activated(sum_at<level, row>(v, w));
          constexpr int in = index<phase_rows::x, level, row>, out = index<phase_rows::x, level + 1, row>;
          v[out] = base::has_residual ? y + v[in] : y;
        } else {
          A g = grad_y[first_grad + row];
          if constexpr (base::derivative == phase_derivative::taps) { v[index<phase_rows::out, level, row>] = g; }
          if constexpr (Shape.act != activation::none) {
            g = g * base::derivative_at(sum_at<level, row>(v, w));
            if (!interior && position + row * columns >= length) g = A(0);
          }
          v[index<phase_rows::grad, level, row>] = g;
        }
      });
    });
  }

  template <int Level, class Emit>
  TCNCA_HOST_DEVICE void backward_rows(array<A, registers>& v, int position, int length, int sum_begin, int sum_end,
                                       bool interior, int column, Emit emit) {
    constexpr phase_backward_level level = plan.level[Level];
    constexpr int step = level.dilation / columns, lag = level.lag / columns, delay = level.history / columns;
    // First registers of the arrays at the position of the window.
    constexpr int x = index<phase_rows::x, Level, -lag>, g = index<phase_rows::grad, Level, -delay>,
                  out = index<phase_rows::out, Level, -delay>;
    array<A, rows> grad;
    {
      array<A, round_up(taps, 4)> w;
      this->template load_weights<Level>(w);
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        A sum = A(0);
        unroll<0, taps>([&](auto k) TCNCA_INLINE { sum = multiply_add(w[k], v[g + int(m) + int(k) * step], sum); });
        if constexpr (base::has_residual) {
          sum = sum + v[(base::derivative == phase_derivative::taps ? out : g) + int(m)];
        }
        grad[m] = sum;
      });
    }
    position -= level.lag;
    if constexpr (Level == 0) {
      unroll<0, rows>([&](auto m) TCNCA_INLINE { emit(column + int(m) * columns, grad[m]); });
    } else {
      if constexpr (base::derivative == phase_derivative::taps) {
        store_rows<phase_rows::out, Level - 1>(v, grad, column);
      }
      multiply_by_derivative<Level>(v, grad, column);
      if (base::derivative != phase_derivative::one && !interior)
        unroll<0, rows>([&](auto m) TCNCA_INLINE {
          if (position + int(m) * columns >= length) grad[m] = A(0);
        });
      store_rows<phase_rows::grad, Level - 1>(v, grad, column);
    }
    array<A, rows> own;  // gradients of the sums at the position of x
    unroll<0, rows>([&](auto m) TCNCA_INLINE { own[m] = v[g + int(m)]; });
    if (!interior)
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        int const p = position + int(m) * columns;
        if (p < sum_begin || p >= sum_end) v[x + int(m)] = own[m] = A(0);
      });
    unroll<0, rows>([&](auto m) TCNCA_INLINE {
      unroll<0, taps>([&](auto k) TCNCA_INLINE {
        constexpr int s = Level * base::taps + decltype(k)::value;
        parameter_sum[s] = multiply_add(v[g + int(m) + int(k) * step], v[x + int(m)], parameter_sum[s]);
      });
      if constexpr (Shape.bias) { parameter_sum[base::levels * base::taps + Level] += own[m]; }
    });
  }

  /// Multiplies the gradients of the outputs of level Level - 1 by the derivatives of the activation.
  template <int Level>
  TCNCA_HOST_DEVICE void multiply_by_derivative(array<A, registers> const& v, array<A, rows>& grad, int column) const {
    constexpr int lag = plan.level[Level].lag;
    if constexpr (derivative == phase_derivative::output) {
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        constexpr int i = index<phase_rows::x, Level, decltype(m)::value - lag / columns>;
        grad[m] = grad[m] * base::derivative_from_output(v[i]);
      });
    } else if constexpr (derivative == phase_derivative::sum && Level == first) {
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        constexpr int i = index<phase_rows::derivative, Level, decltype(m)::value - lag / columns>;
        grad[m] = grad[m] * v[i];
      });
    } else if constexpr (derivative != phase_derivative::one && Level == first) {
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        grad[m] = grad[m] * base::derivative_at(
                                this->template sum_from_buffers<Level - 1, lag>(column + int(m) * base::plan.columns));
      });
    } else if constexpr (derivative != phase_derivative::one) {
      array<A, round_up(taps, 4)> w;
      this->template load_weights<Level - 1>(w);
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        constexpr int row = decltype(m)::value - lag / columns;
        grad[m] = grad[m] * base::derivative_at(sum_at<Level - 1, row>(v, w));
      });
    }
  }

  /// Stores gradients of level Level for the tile: in registers, or in the buffer of a level before the columns.
  template <phase_rows Array, int Level>
  TCNCA_HOST_DEVICE void store_rows(array<A, registers>& v, array<A, rows> const& grad, int column) const {
    if constexpr (Level < first) {
      constexpr phase_buffer buffer = Array == phase_rows::grad ? plan.level[Level].grad : plan.level[Level].out;
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        constexpr int distance = base::bytes_of(columns) * decltype(m)::value;
        *this->template at_offset<buffer, 0>(base::bytes_of(column) + distance) = grad[m];
      });
    } else {
      unroll<0, rows>([&](auto m) TCNCA_INLINE {
        constexpr int i = index<Array, Level, decltype(m)::value>;
        v[i] = grad[m];
      });
    }
  }
};

}  // namespace tcnca::detail
