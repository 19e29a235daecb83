// The plan of the tensor-core backward kernel: how the levels of a pass are divided into blocks of rows, how far each
// level's gradient lags behind, and where the rings are in shared memory. Computed at compile time from the shape.
#pragma once
#include "../../core/numeric.hpp"
#include "../pass.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A ring of positions in shared memory. A vector is 8 positions, 16 bytes. Within 128 bytes, the number of a vector is
/// XORed with bits of its position in the period (see tensor_backward_plan::swizzled), so that 8 rows of a block are in
/// different banks.
struct tensor_backward_ring {
  int offset = 0, length = 0, period = 64;  // bytes; positions; positions
};

/// A level. A block is 8 rows of 16 lines; the rows of a line are `row` positions apart. If row is 1, a line is a
/// stretch of `line` neighbouring positions; else the 16 lines of a block begin at neighbouring positions.
struct tensor_backward_level {
  int row = 1, line = 0, step = 1;  // step: the dilation, in rows
  int history = 0;                  // blocks before a block that its outputs depend on
  int blocks = 0;                   // neighbouring blocks of a warp
  int lag = 0;                      // positions by which the level's gradient follows the newest tile
  int products = 0;                 // number of the level's first weight fragment
  int sums = 0;                     // number of the first 16 x 8 tile of the sums of its weight gradients
  tensor_backward_ring input;       // the level's inputs (see tensor_backward_plan::stores_sums)
  tensor_backward_ring gradient;    // gradients of the level's sums, before the activation
  // With residuals and an activation: the sums that `input` is computed from, gradients of the level's outputs.
  tensor_backward_ring sum, output_gradient;

  TCNCA_HOST_DEVICE constexpr bool lines() const { return row == 1; }
  TCNCA_HOST_DEVICE constexpr int period() const { return 8 * (lines() ? line : row); }
  TCNCA_HOST_DEVICE constexpr int block_distance() const { return lines() ? 8 : 8 * row; }
  TCNCA_HOST_DEVICE constexpr int tiles() const { return (history + 2) / 2; }
};

struct tensor_backward_plan {
  static constexpr int max_levels = 16, blocks_per_warp = 4, warp_positions = 128 * blocks_per_warp;

  bool exists = false;
  bool stores_sums = false;  // rings of inputs hold rounded sums, to which each load applies the activation
  int levels = 0, tile = 0, warps = 0;
  int products = 0, sums = 0;               // of all levels: fragments of weights, tiles of sums
  tensor_backward_ring grad_y;              // a tile of the gradients of the outputs, or two
  int weights = 0, scratch = 0, bytes = 0;  // byte offsets in shared memory; its size
  int staging = 0;                          // channels-last: tiles of x, grad_y and grad_x that are exchanged
  bool shares_staging = false;              // x and grad_y have the same buffer
  index_t halo = 0;
  tensor_backward_level level[max_levels] = {};

  TCNCA_HOST_DEVICE constexpr int threads() const { return 32 * warps; }

  /// The byte offset of a position whose distance from a multiple of the period is `offset`.
  template <int Period>
  TCNCA_HOST_DEVICE static constexpr uint32 swizzled(int offset) {
    uint32 const vector = (uint32(offset) + (1u << 30)) % uint32(Period) / 8;
    return uint32(2 * offset) ^ ((vector >> 3 ^ vector >> 6) & 7) << 4;
  }
};

namespace detail {

/// Divides the levels into rows and blocks. False if a level does not fit.
constexpr bool choose_rows(tensor_backward_plan& p, conv_stack_shape const& s, layer_range layers) {
  constexpr int max_history = 8;
  for (int i = 0; i < p.levels; i++) {
    tensor_backward_level& l = p.level[i];
    index_t const d = s.dilation(layers.first + i);
    if (d > index_t(p.tile) * 16) return false;
    // The row with the shortest lag, among equal ones the one with the fewest products.
    index_t best = 0;
    for (int row = 16; row <= p.tile / 16 && d % row == 0; row *= 2) {
      index_t const step = d / row, history = divide_up((s.taps - 1) * step, index_t(8)),
                    cost = history * (row / 32 + 3);
      if (history <= max_history && history * 8 * row <= p.tile && (best == 0 || cost <= best)) {
        best = cost;
        l.row = row, l.step = int(step), l.history = int(history);
      }
    }
    if (best == 0) {
      index_t const history = divide_up((s.taps - 1) * d, index_t(8));
      if (history > max_history) return false;
      l.row = 1, l.step = int(d), l.history = int(history);
    }
    l.blocks = l.row * 32 <= p.tile ? 4 : 2;
  }
  // All levels of lines have the same line, at least as long as the rows of neighbouring levels: no bank conflicts.
  int line = 8 * tensor_backward_plan::blocks_per_warp;
  for (int i = 0; i < p.levels; i++)
    if (p.level[i].lines())
      for (int j = max_of(i - 1, 0); j <= min_of(i + 1, p.levels - 1); j++) line = max_of(line, p.level[j].row);
  for (int i = 0; i < p.levels; i++)
    if (p.level[i].lines()) p.level[i].line = min_of(line, p.tile / 16);
  return true;
}

/// Lags, and places in shared memory, for tiles of p.tile positions. Aligned: lags are also multiples of the next
/// level's period, which makes addresses cheaper.
constexpr void place_rings(tensor_backward_plan& p, conv_stack_shape const& s, bool aligned, int max_bytes) {
  bool const keeps_sums = s.residuals != residual::none && s.act != activation::none;
  int const depth = p.levels, tile = p.tile;
  p.products = p.sums = 0;
  int lag = 0;
  for (int i = depth - 1; i >= 0; i--) {
    tensor_backward_level& l = p.level[i];
    int const next = aligned && i + 1 < depth ? p.level[i + 1].period() : 64;
    lag = l.lag = round_up(lag + l.history * l.block_distance(), max_of(l.period(), next));
  }
  tensor_backward_ring* rings[4 * tensor_backward_plan::max_levels] = {};
  int count = 0, bytes = 0;
  auto const add = [&](tensor_backward_ring& ring, int length, int a, int b) {
    ring.length = round_up(length, 64), ring.period = max_of(p.level[a].period(), p.level[b].period());
    rings[count++] = &ring, bytes += 2 * ring.length;
  };
  for (int i = 0; i < depth; i++) {
    tensor_backward_level& l = p.level[i];
    int const below = max_of(i - 1, 0), above = min_of(i + 1, depth - 1);
    int const delta = l.lag - (i + 1 < depth ? p.level[i + 1].lag : 0), reach = tile + l.history * l.block_distance();
    // The backward phase of the level comes before the forward phase that writes the new tile: one tile less.
    bool const early = depth - 1 - i < i - 1;
    add(l.input, max_of((i == 0 ? 3 : early ? 1 : 2) * tile + l.lag, reach), i, below);
    add(l.gradient, max_of((depth == 1 ? 2 : 1) * tile + delta, reach), i, above);
    if (keeps_sums) {
      if (i > 0) add(l.sum, (early ? 1 : 2) * tile + l.lag, i, below);
      add(l.output_gradient, (depth == 1 ? 2 : 1) * tile + delta, i, above);
    }
    l.products = p.products, p.products += 2 * (l.history + 1);
    l.sums = p.sums, p.sums += l.tiles();
  }
  p.grad_y.length = (depth == 1 ? 2 : 1) * tile, p.grad_y.period = p.level[depth - 1].period();
  p.shares_staging = depth >= 4;
  int const buffers = s.order == layout::batch_length_channels ? (p.shares_staging ? 2 : 3) : 0;
  int const exchanged = buffers > 0 ? buffers * 2 * tile + 128 : 0;
  int const others = exchanged + 2 * p.grad_y.length + 128 * p.products + 16 * depth + (depth == 1 ? 2 * tile : 0);
  // Rings of the same length share their positions: lengthens rings that are a little shorter than another one.
  for (int i = 0; i < count; i++) {
    int best = 0;
    for (int j = 0; j < count; j++) {
      int const more = rings[j]->length - rings[i]->length;
      if (more > 0 && more <= tile / 4 && 2 * more <= max_bytes - others - bytes) best = max_of(best, more);
    }
    rings[i]->length += best, bytes += 2 * best;
  }
  int at = 0;
  for (int i = 0; i < count; i++) rings[i]->offset = at, at += 2 * rings[i]->length;
  p.grad_y.offset = at, at += 2 * p.grad_y.length;
  p.weights = at, at += 128 * p.products + 16 * depth;
  p.scratch = p.grad_y.offset;  // free at the end of a step, unless the next tile is on its way
  if (depth == 1) p.scratch = at, at += 2 * tile;
  if (buffers > 0) p.staging = round_up(at, 128), at = p.staging + buffers * 2 * tile;
  p.bytes = at;
}

}  // namespace detail

/// The plan of these layers for blocks of at most max_bytes of shared memory; `exists` is false if there is none.
constexpr tensor_backward_plan make_tensor_backward_plan(conv_stack_shape const& s, layer_range layers, int max_bytes) {
  tensor_backward_plan p;
  p.levels = layers.count();
  bool const supported = s.taps >= 2 && s.taps < 64 && s.dir == direction::causal && !s.skip && p.levels > 0 &&
                         p.levels <= tensor_backward_plan::max_levels &&
                         (s.residuals == residual::none || (s.residuals == residual::level && s.convolutions == 1));
  if (!supported) return p;
  p.stores_sums = s.residuals == residual::none && s.act != activation::none && s.act != activation::relu;
  for (p.tile = 4096; p.tile >= 1024; p.tile /= 2) {
    p.warps = p.tile / tensor_backward_plan::warp_positions;
    if (!detail::choose_rows(p, s, layers)) continue;
    for (int aligned = 1; aligned >= 0 && !p.exists; aligned--) {
      detail::place_rings(p, s, aligned != 0, max_bytes);
      p.exists = p.bytes <= max_bytes && p.products + 4 * (p.sums + (s.bias ? p.levels : 0)) <= 144;
    }
    if (p.exists) break;
  }
  // A segment's sums begin up to a tile before the segment.
  index_t history = 0;
  for (int i = 0; i < p.levels && p.exists; i++) {
    history += s.history(layers.first + i);
    p.halo = max_of(p.halo, history + p.level[i].lag % p.tile);
  }
  p.halo = p.exists ? round_up(p.halo, index_t(p.tile)) : 0;
  return p;
}

/// Shared memory of a block: on sm_90, and on sm_80.
inline constexpr int tensor_backward_bytes = 227 * 1024, tensor_backward_bytes_sm_80 = 163 * 1024;

template <conv_stack_shape Shape, layer_range Layers, int MaxBytes = tensor_backward_bytes>
inline constexpr tensor_backward_plan tensor_backward_plan_of = make_tensor_backward_plan(Shape, Layers, MaxBytes);

/// Whether the tensor-core backward kernel can process these layers. Channels-last on sm_90a only.
template <element T, conv_stack_shape Shape, layer_range Layers, int MaxBytes = tensor_backward_bytes>
inline constexpr bool has_tensor_backward_plan =
    (same<T, bf16> || same<T, fp16>)&&tensor_backward_plan_of<Shape, Layers, MaxBytes>.exists;

}  // namespace tcnca
