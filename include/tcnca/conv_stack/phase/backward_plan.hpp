// Plan of the register-phase backward kernel: how the threads of a block divide the positions of each level, how far
// the gradients of each level lag behind its inputs, and where the buffers are in shared memory.
#pragma once
#include "../../core/numeric.hpp"
#include "../pass.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How the outputs of a level in a tile are divided among the threads; each thread computes phase_outputs of them.
///   contiguous  consecutive positions: for small dilations
///   residue     positions a dilation apart, which share inputs in registers: for dilations that are powers of two
///   single      positions `threads` apart, each with its own inputs: for any other dilation
enum class phase_mapping { contiguous, residue, single };

/// Where the derivative of an activation comes from when the gradient of its output is known.
///   one     there is no activation
///   output  computed from the output of the activation
///   sum     computed from its argument; the buffers then hold the arguments of the activations, not their outputs
///   taps    the argument is computed again from the inputs of the level
enum class phase_derivative { one, output, sum, taps };

/// Outputs of a thread per tile and level.
inline constexpr int phase_outputs = 8;

/// Index in shared memory of position p >= 0 of a buffer: four unused elements after each 32. With phase_outputs == 8
/// no mapping has bank conflicts where dilations are powers of two.
TCNCA_HOST_DEVICE constexpr int phase_padded(int p) { return p + (p >> 5) * 4; }

/// A buffer of positions in shared memory. A ring has `length` positions, a multiple of 32. A line has the `history`
/// positions before the tile, a multiple of 32, and the tile always at the same place.
struct phase_buffer {
  int offset = 0;  // elements
  int length = 0, history = 0;
  int cursor = -1;  // of a ring; rings of the same length have the same cursor
};

struct phase_backward_level {
  int dilation = 0, history = 0;  // history: (taps - 1) * dilation
  phase_mapping mapping = phase_mapping::single;
  // In the step of the tile [t, t + tile), the gradients of the level's input are computed for the positions
  // [t - lag, t - lag + tile), those of its sum `delay` positions later.
  int lag = 0, delay = 0;
  phase_buffer x;     // inputs
  phase_buffer grad;  // gradients of the sums
  phase_buffer out;   // gradients of the outputs, only with an activation and a residual

  // Between two elements of a window of inputs, and between two taps in elements of the window.
  TCNCA_HOST_DEVICE constexpr int spacing() const { return mapping == phase_mapping::contiguous ? 1 : dilation; }
  TCNCA_HOST_DEVICE constexpr int tap_step() const { return mapping == phase_mapping::contiguous ? dilation : 1; }
};

/// The levels from first_column_level on keep their windows in registers. A thread has the positions with the same
/// remainders modulo the dilation of the first of these levels ("columns"); a tile has `rows` positions of each.
template <int Levels>
struct phase_backward_plan {
  int tile = 0, threads = 0;
  int first_column_level = Levels, columns = 1, rows = 0, columns_per_thread = 0;
  detail::array<phase_backward_level, Levels> level = {};
  int cursors = 0;
  detail::array<int, 3 * Levels> cursor_length = {};
  int buffers = 0;  // elements of all rings
  int weights = 0, bias = 0, partial = 0, totals = 0;
  int elements = 0;  // of shared memory
  int halo = 0;

  constexpr size_t bytes() const { return size_t(elements) * sizeof(float); }
};

namespace detail {

TCNCA_HOST_DEVICE constexpr bool is_power_of_two(int n) { return n > 0 && (n & (n - 1)) == 0; }

TCNCA_HOST_DEVICE constexpr phase_derivative phase_derivative_of(conv_stack_shape const& s) {
  if (s.act == activation::none) return phase_derivative::one;
  if (s.residuals != residual::none) return phase_derivative::taps;
  return s.act == activation::relu || s.act == activation::tanh ? phase_derivative::output : phase_derivative::sum;
}

/// Registers per thread for the history of column levels.
inline constexpr int phase_column_registers = 64;

/// The first level whose window, and those of all later levels, a thread can keep in registers.
template <int Levels>
constexpr int first_column_level(phase_backward_plan<Levels> const& p, conv_stack_shape const& s) {
  int best = Levels;
  for (int first = Levels - 1; first >= 0; first--) {
    int const columns = p.level[first].dilation;
    bool possible = columns % p.threads == 0 && p.tile % columns == 0;
    int lag = 0, registers = 0;
    for (int i = Levels - 1; i >= first && possible; i--) {
      possible = p.level[i].dilation % columns == 0;
      int const rows = p.level[i].history / columns;
      lag += rows;
      registers += lag + rows * (phase_derivative_of(s) == phase_derivative::taps ? 2 : 1);
    }
    if (phase_derivative_of(s) == phase_derivative::sum) registers += lag;
    if (possible && columns / p.threads * registers <= phase_column_registers) best = first;
  }
  return best;
}

template <element T, conv_stack_shape Shape, layer_range Layers>
constexpr auto make_phase_backward_plan(int tile) {
  constexpr int levels = Layers.count(), last = levels - 1;
  constexpr phase_derivative derivative = phase_derivative_of(Shape);
  phase_backward_plan<levels> p;
  p.tile = tile, p.threads = tile / phase_outputs;
  for (int i = 0; i < levels; i++) {
    phase_backward_level& l = p.level[i];
    l.dilation = int(Shape.dilation(Layers.first + i)), l.history = int(Shape.history(Layers.first + i));
    bool const residue = is_power_of_two(l.dilation) && l.dilation >= 4 && l.dilation <= p.threads;
    // Contiguous windows need fewer instructions, but more of their elements are shared with other threads, which is
    // expensive where each element goes through the activation.
    int const contiguous_history = !residue ? 64 : derivative == phase_derivative::sum ? 0 : 12;
    if (l.dilation == 1 || l.history <= contiguous_history) l.mapping = phase_mapping::contiguous;
    else if (residue) l.mapping = phase_mapping::residue;
    p.halo += i < last || Shape.act != activation::none ? l.history : 0;
  }
  p.halo = round_up(p.halo, 64);
  p.first_column_level = first_column_level(p, Shape);
  int const first = p.first_column_level;
  if (first < levels) {
    p.columns = p.level[first].dilation, p.rows = tile / p.columns, p.columns_per_thread = p.columns / p.threads;
  }

  // Windows of contiguous levels begin at vectors, those of residue levels at multiples of the dilation.
  auto const unit_of = [&](int i) {
    if (i < 0 || i >= first || p.level[i].mapping == phase_mapping::single) return 1;
    if (p.level[i].mapping == phase_mapping::residue) return p.level[i].dilation;
    return i == 0 ? 16 / int(sizeof(T)) : 4;
  };
  int lag = 0;
  for (int i = last; i >= 0; i--) {
    phase_backward_level& l = p.level[i];
    l.lag = round_up(lag + l.history, i < first ? max_of(unit_of(i), unit_of(i - 1)) : 1);
    l.delay = l.lag - lag, lag = l.lag;
  }

  int used = 0;
  auto const place_ring = [&](phase_buffer& b, int length, int read_block, int write_block) {
    b.offset = used, b.length = round_up(length, max_of(32, max_of(read_block, write_block)));
    used += phase_padded(b.length), b.cursor = 0;
    while (b.cursor < p.cursors && p.cursor_length[b.cursor] != b.length) b.cursor++;
    if (b.cursor == p.cursors) p.cursor_length[p.cursors++] = b.length;
  };
  auto const place_line = [&](phase_buffer& b, int history) {
    b.offset = used, b.history = round_up(history, 32), b.length = b.history + tile;
    used += phase_padded(b.length);
  };
  auto const block_of = [&](int i) {
    if (i >= levels || i < 0) return 32;
    if (i >= first) return p.columns;
    return p.level[i].mapping == phase_mapping::residue ? phase_outputs * p.level[i].dilation : 32;
  };
  for (int i = 0; i < levels; i++) {
    phase_backward_level& l = p.level[i];
    if (i < first) place_ring(l.x, tile + l.lag, block_of(i), block_of(i - 1));
    if (i == first) place_line(l.x, 0);
    auto const place_gradients = [&](phase_buffer& b) {
      int const history = round_up(l.delay, block_of(i));
      if (2 * history <= tile) place_line(b, history);
      else place_ring(b, tile + l.delay, block_of(i), block_of(i + 1));
    };
    if (i < first) {
      place_gradients(l.grad);
      if (derivative == phase_derivative::taps) place_gradients(l.out);
    }
  }
  p.buffers = used;
  p.weights = used, used += levels * round_up(Shape.taps, 4);
  p.bias = used, used += round_up(levels, 4);
  int const sums = round_up(levels * (Shape.taps + 1), 4);
  p.totals = used, used += 2 * sums;
  p.partial = used, used += p.threads / 32 * sums;
  p.elements = used;
  return p;
}

/// The longest tile whose buffers fit; 0 if there is none. Blocks of sm_80 have 163 KB, those of sm_90 227 KB.
template <element T, conv_stack_shape Shape, layer_range Layers>
constexpr int phase_backward_tile() {
  size_t const limits[] = {size_t(163) << 10, size_t(227) << 10};
  for (size_t limit : limits)
    for (int tile = 2048; tile >= 512; tile /= 2)
      if (make_phase_backward_plan<T, Shape, Layers>(tile).bytes() <= limit) return tile;
  return 0;
}

template <element T, conv_stack_shape Shape, layer_range Layers>
constexpr bool phase_backward_supports() {
  if constexpr (same<T, double> || Shape.dir != direction::causal || Shape.order != layout::batch_channels_length ||
                Shape.skip || Shape.taps > 64 || Layers.count() < 1 || Shape.residuals == residual::block ||
                (Shape.residuals == residual::level && Shape.convolutions != 1)) {
    return false;
  } else if constexpr (history_of(Shape, Layers) > 32768) {
    return false;
  } else {
    return phase_backward_tile<T, Shape, Layers>() > 0;
  }
}

}  // namespace detail

/// Whether conv_stack_phase_backward_agent can compute these layers with the shared memory of sm_90 (227 KB). A device
/// with less, as sm_80 (163 KB), can if phase_backward_plan_of<...>.bytes() fits.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr bool has_phase_backward_plan = detail::phase_backward_supports<T, Shape, Layers>();

/// The plan of these layers. The agent's group has `threads` threads.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr auto phase_backward_plan_of =
    detail::make_phase_backward_plan<T, Shape, Layers>(detail::phase_backward_tile<T, Shape, Layers>());

}  // namespace tcnca
