// How the tensor-core forward kernel divides the layers of a pass into stages, the positions into tiles, and the work
// among warps. Computed at compile time from the shape.
#pragma once
#include "../../core/numeric.hpp"
#include "../pass.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How the blocks of a stage are arranged in a tile. A block is 8 rows of 16 lines; the rows of a line are `row`
/// positions apart.
///   lines   row 1. A line is a stretch of neighbouring positions; a warp walks along 16 stretches at once
///   walk    row 16 to 128. A line is one position of a row, 16 neighbours are a group; a warp walks along the rows of
///           one group. Like `lines`, a walk begins with blocks of history that it computes again
///   owned   row from 64. A warp processes all rows of its groups and keeps their history in registers
///   burst   a tile has less than 8 rows. All warps wait for 8 rows, then process them; history in registers
enum class tensor_stage_kind { lines, walk, owned, burst };

/// Layers that are computed one after the other in registers: the output fragments of a layer are, rounded to T, the
/// input fragments of the next one.
struct tensor_stage {
  static constexpr int max_layers = 4;

  int first = 0, layers = 0;     // of the pass, counted from its first layer
  int row = 1;                   // positions from row to row; divides the dilations of all layers
  int step[max_layers] = {};     // dilations, in rows
  int history[max_layers] = {};  // blocks of 8 rows before a block that its outputs depend on
  int blocks = 0;                // lines, walk: blocks of a warp and tile; owned, burst: of a group and tile
  int groups = 0;                // owned, burst: groups of a warp
  int warps = 0, first_warp = 0;
  int slots = 0;                      // tiles in the stage's input ring
  int shift[2] = {};                  // of the ring's swizzle; 0: none
  int ring = 0;                       // byte offsets in shared memory: the ring,
  int initial = 0, final_inputs = 0;  // fragments before the sequence, and those that go into the final state
  tensor_stage_kind kind = tensor_stage_kind::lines;

  TCNCA_HOST_DEVICE constexpr bool walks() const {
    return kind == tensor_stage_kind::lines || kind == tensor_stage_kind::walk;
  }
  /// Blocks of history of the layers before layer i.
  TCNCA_HOST_DEVICE constexpr int history_before(int i) const {
    int n = 0;
    for (int j = 0; j < i; j++) n += history[j];
    return n;
  }
  /// Blocks before its own with which a walk begins: even, because blocks are loaded in pairs.
  TCNCA_HOST_DEVICE constexpr int warm() const { return round_up(history_before(layers), 2); }
  /// Blocks of outputs of layer i, before a walk's own, that later layers need.
  TCNCA_HOST_DEVICE constexpr int warm_after(int i) const { return history_before(layers) - history_before(i + 1); }
  /// Blocks of the banded weight matrices of the layers before layer i.
  TCNCA_HOST_DEVICE constexpr int products_before(int i) const { return history_before(i) + i; }
  TCNCA_HOST_DEVICE constexpr int products() const { return products_before(layers); }
  TCNCA_HOST_DEVICE constexpr int longest_history() const {
    int n = 0;
    for (int i = 0; i < layers; i++) n = max_of(n, history[i]);
    return n;
  }
  /// Owned, burst: registers that hold the history of one group and layer.
  TCNCA_HOST_DEVICE constexpr int history_registers() const { return longest_history() > 1 ? 4 : 2; }
  /// Pairs of blocks of a warp and tile: two neighbouring blocks of a walk, or two neighbouring groups.
  TCNCA_HOST_DEVICE constexpr int pairs() const { return walks() ? blocks / 2 : blocks * groups / 2; }
  /// Lanes that hold fragments before the sequence.
  TCNCA_HOST_DEVICE constexpr int initial_lanes() const {
    return kind == tensor_stage_kind::lines ? 4 : kind == tensor_stage_kind::walk ? 2 * row : 0;
  }
  TCNCA_HOST_DEVICE constexpr int initial_bytes() const { return (layers - 1) * (warm() / 2) * initial_lanes() * 16; }
  TCNCA_HOST_DEVICE constexpr int final_bytes() const { return (layers - 1) * pairs() * warps * 512; }
  /// log2 of the distance, in vectors of 8 positions, of the 8 vectors of a matrix that the stage loads or stores.
  TCNCA_HOST_DEVICE constexpr int vector_distance() const {
    int const n = kind == tensor_stage_kind::lines ? blocks : row / 8;
    int log = 0;
    while (n >> (log + 1) != 0) log++;
    return log;
  }
};

/// The stages of a pass. Stage g processes tile n - g in step n, so all stages work at the same time, on neighbouring
/// tiles, and one barrier a step is enough.
struct tensor_plan {
  static constexpr int max_stages = 8;
  static constexpr int x_buffers = 2, y_buffers = 3;  // staging buffers of a tile
  static constexpr int entries = 16;  // of the item table; more than the items that stages process at the same time

  bool exists = false;
  int tile = 0, stages = 0, warps = 0;
  int blocks = 1;                           // that a multiprocessor holds at the same time
  int values = 0, entry_bytes = 0;          // 16-bit weights and biases of an item, bytes of its entry in the table
  int table = 0, bytes = 0;                 // byte offset of the item table; shared memory of a block
  int x_staging = 0, y_staging = 0;         // channels-last: byte offsets of tiles that are exchanged
  bool in_place = false;                    // the last stage's outputs replace its inputs in its ring
  tensor_stage stage[max_stages + 1] = {};  // the last one: the ring of the outputs, unless in place

  TCNCA_HOST_DEVICE constexpr int threads() const { return warps * 32; }
};

namespace detail {

/// Bit k of a vector's number as seen in the vector's place among the 8 of a line of 128 bytes.
constexpr int swizzle_image(int bit, int a, int b) {
  int v = bit < 3 ? 1 << bit : 0;
  if (a > 0 && bit >= a && bit < a + 3) v ^= 1 << (bit - a);
  if (b > 0 && bit >= b && bit < b + 3) v ^= 1 << (bit - b);
  return v;
}
/// Whether 8 vectors whose numbers differ in the bits first to first + 2 are in 8 different places.
constexpr bool swizzle_spreads(int first, int a, int b) {
  int const x = swizzle_image(first, a, b), y = swizzle_image(first + 1, a, b), z = swizzle_image(first + 2, a, b);
  return x != 0 && y != 0 && z != 0 && x != y && y != z && x != z && (x ^ y ^ z) != 0;
}
/// Chooses the swizzle of a ring: no bank conflicts of neighbouring vectors, of the reader's nor of the writer's.
constexpr void choose_swizzle(tensor_stage& ring, int reader, int writer) {
  for (int b = 0; b <= 12; b++)
    for (int n = 0; n <= 12; n++) {
      int const a = n == 0 ? reader : n;  // the reader's own first: it also holds where 8 vectors begin anywhere
      if (swizzle_spreads(0, a, b) && swizzle_spreads(reader, a, b) && swizzle_spreads(writer, a, b)) {
        ring.shift[0] = a, ring.shift[1] = b;
        return;
      }
    }
  ring.shift[0] = -1;
}

/// Groups consecutive layers into stages. False if a layer fits into none.
constexpr bool choose_stages(tensor_plan& p, conv_stack_shape const& s, layer_range layers) {
  constexpr int max_products = 20, max_line_step = 128;
  for (int l = 0; l < layers.count();) {
    if (p.stages == tensor_plan::max_stages) return false;
    tensor_stage& g = p.stage[p.stages++];
    g.first = l;
    index_t const first = s.dilation(layers.first + l);
    if (first >= 16) {  // the largest power of two that divides the dilation
      index_t row = 1;
      while (first % (2 * row) == 0 && row < 1 << 20) row *= 2;
      g.row = int(row < 16 ? 1 : row);
    }
    for (; l < layers.count() && g.layers < tensor_stage::max_layers; l++) {
      index_t const dilation = s.dilation(layers.first + l), step = dilation / g.row;
      if (dilation % g.row != 0 || step > max_line_step) break;
      int const history = int(divide_up((s.taps - 1) * step, index_t(8)));
      bool const fits = (s.taps - 1) * step <= 16 || (g.row == 1 && step < 16);
      if (g.layers > 0 && (!fits || g.products() + history + 1 > max_products)) break;
      g.step[g.layers] = int(step), g.history[g.layers++] = history;
    }
    if (g.layers == 0 || g.products() > max_products) return false;
  }
  return true;
}

/// Divides a tile among warps; places the rings. False if the stages cannot work on tiles of this length.
constexpr bool divide_tile(tensor_plan& p, int tile, bool channels_last) {
  using kind = tensor_stage_kind;
  int const last = p.stages - 1;
  p.tile = tile, p.warps = 0;
  for (int i = 0; i <= last; i++) {
    tensor_stage& g = p.stage[i];
    int const rows = tile / g.row, blocks = 8;  // blocks: of a walk
    g.first_warp = p.warps, g.groups = 0;
    if (rows < 8) {
      if (i != last || i == 0 || g.row > tile) return false;
      g.kind = kind::burst, g.first_warp = 0, g.warps = p.warps, g.blocks = 1, g.groups = g.row / 16 / p.warps;
    } else if (g.row >= 256 || (g.row > 1 && rows % (8 * blocks) != 0)) {
      g.kind = kind::owned, g.blocks = rows / 8, g.groups = max_of(2, 4 / g.blocks), g.warps = g.row / 16 / g.groups;
    } else {
      g.kind = g.row == 1 ? kind::lines : kind::walk, g.blocks = blocks, g.warps = tile / 128 / blocks;
      if (g.warm() * 8 * g.row > tile) return false;
    }
    if (!g.walks() && (g.groups % 2 != 0 || g.groups * g.warps * 16 != g.row || g.longest_history() > 2)) return false;
    if (!g.walks() && g.groups * g.layers * g.history_registers() > 64) return false;
    if (g.kind != kind::burst) p.warps += g.warps;
  }
  if (p.warps > 32) return false;
  p.in_place = !p.stage[last].walks();
  int at = 0;
  for (int i = 0; i <= last + (p.in_place ? 0 : 1); i++) {
    tensor_stage& g = p.stage[i];
    bool const output = i > last;
    int const writer = i == 0 ? 0 : p.stage[i - 1].vector_distance();
    // Tiles that are being read, their history, being written; and two of x on their way.
    g.slots = i == 0 ? 4 : output ? 1 : g.kind == kind::owned ? 2 : g.kind == kind::burst ? 8 * g.row / tile + 1 : 3;
    choose_swizzle(g, output ? writer : g.vector_distance(), writer);
    if (g.shift[0] < 0) return false;
    g.ring = at, at += g.slots * tile * 2;
  }
  if (channels_last) {
    p.x_staging = at, at += tensor_plan::x_buffers * tile * 2;
    p.y_staging = at, at += tensor_plan::y_buffers * tile * 2;
  }
  p.table = at, at += tensor_plan::entries * p.entry_bytes;
  for (int i = 0; i <= last; i++) {
    tensor_stage& g = p.stage[i];
    g.initial = at, at += g.initial_bytes();
    g.final_inputs = at, at += g.final_bytes();
  }
  p.bytes = at;
  return true;
}

}  // namespace detail

/// The plan of these layers; `exists` is false if the kernel cannot process them.
constexpr tensor_plan make_tensor_plan(conv_stack_shape const& s, layer_range layers) {
  bool const channels_last = s.order == layout::batch_length_channels;
  int const max_bytes = (channels_last ? 227 : 163) * 1024;  // of a block: clusters need sm_90, the others run on sm_80
  constexpr int multiprocessor_bytes = 227 * 1024;           // on sm_90
  tensor_plan p;
  bool const supported = s.taps >= 2 && s.dir == direction::causal && !s.skip && layers.count() > 0 &&
                         (s.residuals == residual::none || (s.residuals == residual::level && s.convolutions == 1));
  if (!supported || !detail::choose_stages(p, s, layers)) return p;
  p.values = layers.count() * (s.taps + 1);
  p.entry_bytes = 32 + round_up(p.values * 2, 16);
  for (int tile = 2048; tile <= 4096 && !p.exists; tile *= 2)
    p.exists = (tile == 4096 || p.stage[p.stages - 1].row * 8 <= tile) && detail::divide_tile(p, tile, channels_last) &&
               p.bytes <= max_bytes;
  // 80 registers a thread allow 24 warps on a multiprocessor, 128 allow 16.
  bool many_registers = false;
  for (int i = 0; i < p.stages; i++) {
    tensor_stage const& g = p.stage[i];
    many_registers =
        many_registers || g.products() > 6 || (!g.walks() && g.groups * g.layers * g.history_registers() > 32);
  }
  if (p.exists)
    p.blocks = max_of(1, min_of((many_registers ? 16 : 24) / p.warps, multiprocessor_bytes / (p.bytes + 1024)));
  return p;
}

template <conv_stack_shape Shape, layer_range Layers>
inline constexpr tensor_plan tensor_plan_of = make_tensor_plan(Shape, Layers);

/// Whether the tensor-core forward kernel can process these layers. Channels-last on sm_90a only.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr bool has_tensor_forward_plan = (same<T, bf16> || same<T, fp16>)&&tensor_plan_of<Shape, Layers>.exists;

}  // namespace tcnca
