// Memory of the CPU's backward kernel: what each layer keeps from step to step, and how far it lags behind x.
#pragma once
#include "../../block/memory.hpp"
#include "../../core/tensor.hpp"
#include "../generic/plan.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The newest values of one level: those of the current step of a walk and `history` positions before it.
///   - linear (capacity 0): the history, then the step; after a step the history is copied to the front
///   - a ring of `capacity` positions, whole steps; a copy of its first `repeated` positions follows its end: a vector,
///     or a step, so that any range of a step's length is contiguous
struct walk_window {
  size_t offset = 0;  // in the worker's memory, in elements
  index_t history = 0, capacity = 0, repeated = 0;
  index_t shift = 0;  // step s has the positions from s - shift on
};

/// The windows of one direction of a backward walk.
template <int Layers>
struct conv_stack_walk_windows {
  detail::array<walk_window, Layers> input = {};       // a layer's inputs, until its gradients have used them
  detail::array<walk_window, Layers> derivative = {};  // of the activation; unless the sign of the next input tells it
  detail::array<walk_window, Layers> grad = {};        // gradients of a layer's sums
  detail::array<walk_window, Layers> residual = {};    // gradients of a residual's output
  walk_window skip = {};                               // gradients before the final SiLU
  index_t output_shift = 0;                            // of grad_x
};

/// The memory of a worker. A step is `step` positions of x.
template <int Layers>
struct conv_stack_vector_backward_plan {
  index_t step = 0;
  detail::array<conv_stack_walk_windows<Layers>, 2> walk = {};  // of each direction
  // Offsets in elements. After the weights follows a vector of zeros.
  size_t weight = 0, sums = 0, totals = 0;
  detail::array<size_t, 2> buffer = {};             // results of a step, in each direction
  size_t edges = 0;                                 // vectors of all taps at the ends of x or grad_y
  size_t output = 0, output_grad = 0, partial = 0;  // of a bidirectional stack: whole sequences, as in the generic plan
  int steps_per_total = 0;  // steps whose terms are summed in the accumulate type; 0: all of a short sequence
  size_t elements = 0;
};

/// The CPU's view of a stack: constants of the walks, and their memory.
template <element T, conv_stack_shape Shape, conv_stack_policy Policy>
struct conv_stack_vector_layout {
  using A = accumulate_t<T>;
  using plan = conv_stack_vector_backward_plan<Shape.layers()>;
  static constexpr int layers = Shape.layers(), W = Policy.width;
  static constexpr bool along_length = Shape.order == layout::batch_channels_length,
                        has_derivative = Shape.act != activation::none,
                        bidirectional = Shape.dir == direction::bidirectional;
  static constexpr index_t P = along_length ? W : 1;  // positions of a vector
  static constexpr index_t E = W / P;                 // elements per position
  /// The least positions that read the same taps; up to so many zeros are kept at each end of a level.
  static constexpr index_t block = 8 * P;
  /// ReLU's derivative is the sign of its value, which is the next layer's input.
  static constexpr bool derivative_by_sign = Shape.act == activation::relu && Shape.residual_span() == 0;
  /// The last layer's outputs are needed.
  static constexpr bool uses_outputs = has_derivative || Shape.skip;
  /// Level 0 reads x where it is, if there is no state; the last layer's gradients are grad_y.
  static constexpr bool reads_x = along_length && same<T, A> && !Shape.skip && Shape.residual_span() == 0,
                        reads_grad_y = reads_x && !has_derivative && !Shape.bias;
  /// Rows of weights in memory, and of sums: taps, biases, omega.
  static constexpr int rows = Shape.parameters_per_direction() + (Shape.skip ? 1 : 0);

  /// What the levels look up.
  struct layer_table {
    detail::array<index_t, layers> dilation = {}, history = {};
    detail::array<detail::array<index_t, layers>, 2> look_ahead = {};  // of each direction
  };
  static constexpr layer_table make_table() {
    layer_table t;
    for (int l = 0; l < layers; l++) {
      t.dilation[l] = Shape.dilation(l), t.history[l] = Shape.history(l);
      for (int i = 0; i < 2; i++) t.look_ahead[i][l] = Shape.look_ahead(l, i);
    }
    return t;
  }
  static constexpr layer_table table = make_table();

  /// A look-ahead without the taps that only read positions after the end.
  TCNCA_HOST_DEVICE static constexpr index_t live_look_ahead(index_t look_ahead, index_t dilation, index_t length) {
    if (look_ahead < length || look_ahead == 0) return look_ahead;
    return max_of(index_t(0), look_ahead - divide_up(look_ahead - length + 1, dilation) * dilation);
  }
  /// Zeros after the end, from the last vector on, for a level with this look-ahead.
  TCNCA_HOST_DEVICE static constexpr index_t zeros(index_t look_ahead) {
    return min_of(round_up(look_ahead, P), block);
  }

  static constexpr plan make_plan(index_t length, bool state) {
    plan p;
    index_t const whole = round_up(length, P);
    memory_planner<A> memory;
    auto const place = [&](size_t elements) { return memory.place(memory_space::shared, elements).offset; };
    p.weight = place(size_t(rows + 1) * W);
    p.edges = place(reads_x ? size_t((Shape.taps + 1) * block) : 0);
    p.sums = place(size_t(round_up(rows, W)) * W);
    index_t longest = 0;
    for (int direction_index = 0; direction_index < Shape.directions(); direction_index++) {
      set_shifts(p.walk[direction_index], direction_index, length, state);
      longest = max_of(longest, p.walk[direction_index].output_shift);
    }
    // A run of a level costs about 100 cycles besides its vectors, so a step has many vectors; more than 256, in and
    // out, would exceed the first cache. A short sequence is one step: nothing is copied from step to step, and all
    // windows remain in the second cache. Emerald Rapids, K 4 f 4 D 6, fp32, one thread, GFLOP/s (2026-12-01):
    //   vectors of a step     64    128   256   512 | one step
    //   at 4096               51    52    58        | 74
    //   at 16384              59    62    67    71  | 79
    //   at 131072             55    55    59    60
    index_t const all = longest + whole + block, usual = min_of(index_t(Policy.tile), 256 * P);
    bool const one_step = length <= min_of(Policy.single_tile_limit, 1024 * P) || all <= usual;
    p.step = one_step ? all : usual;
    size_t const begin = memory.shared_memory;
    size_t end = begin;
    for (int direction_index = 0; direction_index < Shape.directions(); direction_index++) {
      memory.shared_memory = begin;
      place_windows(memory, p.walk[direction_index], direction_index, whole, one_step, p.step, state,
                    p.buffer[direction_index]);
      end = max_of(end, memory.shared_memory);
    }
    memory.shared_memory = end;
    if (bidirectional) {
      if (Shape.skip) p.output = place(size_t(whole * E)), p.output_grad = place(size_t(whole * E));
      p.partial = place(size_t(whole * E));
    }
    index_t const steps = max_of(index_t(1), 1024 * P / p.step);
    if (length > 1024 * P) {
      p.steps_per_total = int(steps);
      p.totals = place(size_t(round_up(rows, W)) * size_t(E) * (sizeof(double) / sizeof(A)));
    }
    p.elements = memory.shared_memory;
    return p;
  }

 private:
  /// Every level lags behind the one before it by its look-ahead in whole vectors, so that all vectors start at
  /// multiples of P.
  static constexpr void set_shifts(conv_stack_walk_windows<layers>& w, int direction_index, index_t length,
                                   bool state) {
    // Without an activation the gradients do not depend on the layers' outputs. These are then computed as late as
    // their inputs allow: the windows of the inputs are short.
    detail::array<index_t, layers> forward = {}, backward = {};  // lags of the levels
    for (int l = 0; l < layers; l++) {
      index_t const ahead = Shape.look_ahead(l, direction_index), after = Shape.history(l) - ahead,
                    d = Shape.dilation(l);
      forward[l] = round_up(live_look_ahead(ahead, d, length), P);
      backward[l] = round_up(state ? after : live_look_ahead(after, d, length), P);
    }
    index_t inputs = 0, gradients = 0;
    for (int l = 0; l < layers; l++) inputs += forward[l];
    index_t late = inputs;  // how much later than x grad_y is used
    if (!has_derivative && !Shape.skip && !state) {
      late = -(index_t(1) << 60);
      for (int l = layers - 1; l >= 0; l--) {
        inputs -= forward[l], gradients += backward[l];
        late = max_of(late, inputs - gradients);
      }
    }
    index_t shift = max_of(index_t(0), -late);
    for (int l = 0; l < layers; l++) {
      w.input[l].shift = shift;
      shift += forward[l];
      w.derivative[l].shift = shift;
    }
    shift = max_of(index_t(0), late);
    w.skip.shift = shift;
    for (int l = layers - 1; l >= 0; l--) {
      w.grad[l].shift = w.residual[l].shift = shift;
      shift += backward[l];
    }
    w.output_shift = shift;
  }

  static constexpr void place_windows(memory_planner<A>& memory, conv_stack_walk_windows<layers>& w,
                                      int direction_index, index_t whole, bool one_step, index_t step, bool state,
                                      size_t& buffer) {
    // Vectors that a level loads: the bytes from the memory's beginning in the walk's first step.
    detail::array<index_t, 5> loads = {};
    int load_count = 0;
    auto const loads_at = [&](walk_window const& v, index_t delay) {  // of the position `delay` before x
      index_t const first = v.capacity > 0 ? 0 : v.history;
      loads[load_count++] = (index_t(v.offset) + (first + v.shift - delay) * E) * index_t(sizeof(A));
    };
    auto const loads_taps = [&](walk_window const& v, index_t delay, index_t look_ahead, index_t dilation) {
      load_count = 0;
      for (int k = 0; k < min_of(Shape.taps, 4); k++) loads_at(v, delay - look_ahead + k * dilation);
    };
    // Memory for the results of these loads, `before` positions after its beginning. A load waits for an older store
    // whose address has the same last 12 bits: these addresses are kept apart, as far as the stores may be behind.
    auto const place_results = [&](index_t before, index_t positions) {
      index_t best = -1, best_pad = 0;
      for (index_t pad = 0; pad < 64; pad += 4) {
        index_t const at = index_t(memory.shared_memory + size_t(before * E)) * index_t(sizeof(A)) + pad * 64;
        index_t nearest = 64;
        for (int i = 0; i < load_count; i++) {
          index_t const bytes = ((at - loads[i]) % 4096 + 4096) % 4096;
          nearest = min_of(nearest, bytes == 0 ? 64 : max_of(index_t(1), bytes / 64));
        }
        if (nearest > best) best = nearest, best_pad = pad;
      }
      memory.shared_memory += size_t(best_pad) * memory.line;
      return memory.place(memory_space::shared, size_t(positions * E)).offset;
    };
    // A window that is read up to so many positions before the current step; up to `initial` positions before the
    // sequence are read. contiguous: all of a step at a time.
    auto const place = [&](walk_window& v, index_t history, index_t initial, bool contiguous) {
      v.history = round_up(one_step ? initial : history, P);
      v.capacity = !one_step && 2 * history > step ? round_up(history, step) + step : 0;
      v.repeated = contiguous ? step : P;
      v.offset =
          v.capacity > 0 ? place_results(0, v.capacity + v.repeated) : place_results(v.history, v.history + step);
    };
    // How far taps reach back that read the sequence, its state, or the zeros before it.
    auto const reach = [&](index_t history) { return state ? history : min_of(history, whole + block); };
    auto const grad_shift = [&](int l) { return l < 0 ? w.output_shift : w.grad[l].shift; };
    for (int l = 0; l < layers; l++) {
      index_t const look_ahead = table.look_ahead[direction_index][l], history = table.history[l];
      index_t const input = w.input[l].shift, output = w.derivative[l].shift;
      index_t delay = grad_shift(l - 1) - input;
      if (l + 1 < layers || uses_outputs) delay = max_of(delay, output - input + reach(history - look_ahead));
      if (Shape.starts_residual(l)) delay = max_of(delay, w.derivative[l + Shape.residual_span() - 1].shift - input);
      if (l == 0 && Shape.skip) delay = max_of(delay, w.skip.shift - input);
      place(w.input[l], delay, state ? history : zeros(history - look_ahead),
            Shape.starts_residual(l) || (l == 0 && Shape.skip));
      loads_taps(w.input[l], output, look_ahead, table.dilation[l]);
    }
    for (int l = layers - 1; l >= 0; l--) {
      index_t const look_ahead = table.look_ahead[direction_index][l], history = table.history[l];
      place(w.grad[l], grad_shift(l - 1) - grad_shift(l) + reach(look_ahead), zeros(state ? history : look_ahead),
            false);
      loads_taps(w.grad[l], grad_shift(l - 1), history - look_ahead, table.dilation[l]);
      loads_at(w.input[l], grad_shift(l - 1));
    }
    buffer = place_results(0, step);
    load_count = 0;
    for (int l = 0; l < layers; l++) {
      if (has_derivative && !derivative_by_sign) place(w.derivative[l], grad_shift(l) - w.derivative[l].shift, 0, true);
      if (Shape.ends_residual(l)) place(w.residual[l], grad_shift(l - Shape.residual_span()) - grad_shift(l), 0, true);
    }
    if (Shape.skip && !bidirectional) place(w.skip, grad_shift(-1) - w.skip.shift, 0, true);
  }
};

}  // namespace tcnca
