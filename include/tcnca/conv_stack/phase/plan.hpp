// The compile-time schedule of the register-phase kernel: which levels a phase computes, which outputs a thread has in
// it, and where the buffers between phases lie. Plain C++ without a dependency on the group.
#pragma once
#include "../../core/numeric.hpp"
#include "../pass.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How the threads of a group divide the outputs of a phase. A thread computes chains: outputs `stride` positions
/// apart.
enum class phase_kind {
  contiguous,  ///< stride 1
  strided,     ///< the chains of a tile follow each other; what precedes the tile is in shared memory
  resident,    ///< a chain is a whole residue class of the tile modulo the stride; what precedes it is in registers
};

/// Consecutive layers whose intermediate results stay in registers.
struct conv_stack_phase {
  phase_kind kind = phase_kind::contiguous;
  int first = 0, last = 0;  ///< layers; none if the phase only converts x
  int stride = 1;
  int outputs = 0;  ///< of a chain
  int chunks = 0;   ///< chains of a residue class in a tile
  int chains = 0;   ///< of a thread
  int halo = 0;     ///< values that precede the outputs of a chain and that it depends on
};

/// Where position p of a buffer is: p + pad * (p / 32) + block_pad * (p / 2^block_shift). Vectors of four elements at
/// multiples of four stay contiguous.
struct padded_layout {
  int pad = 0, block_pad = 0, block_shift = 0;

  TCNCA_HOST_DEVICE constexpr int operator()(int p) const {
    return p + pad * (p >> 5) + (block_pad > 0 ? block_pad * (p >> block_shift) : 0);
  }
  /// Whether the offset between two outputs of a chain is the same for all chains.
  TCNCA_HOST_DEVICE constexpr bool has_constant_offsets(int stride, int outputs) const {
    auto const is_constant = [=](int period) {
      return stride % period == 0 || (period % stride == 0 && (stride * outputs) % period == 0) ||
             period % (stride * outputs) == 0;
    };
    return (pad == 0 || is_constant(32)) && (block_pad == 0 || is_constant(1 << block_shift));
  }
};

/// The schedule and memory of a pass. Buffer b is the output of phase b; the last one is y. Offsets are in elements of
/// the accumulate type.
struct conv_stack_phase_plan {
  static constexpr int capacity = 17;

  int threads = 128, tile = 4096;
  int count = 0;  ///< phases; 0 if there is no plan
  conv_stack_phase phase[capacity] = {};
  padded_layout buffer[capacity] = {};
  int history[capacity] = {};              ///< positions before a tile that are kept of buffer b
  int history_offset[capacity] = {};       ///< where position 0 of that memory would be
  int area_offset[2] = {};                 ///< buffer b is in area b % 2
  int stage_offset = 0, stage_halo = 0;    ///< stage_halo: positions of x before a tile
  int weight_offset = 0, weight_step = 0;  ///< of a layer's taps; the biases follow
  /// What precedes the walk: `history` inputs of a layer of the pass, if they are neither in a buffer's history nor in
  /// registers; else -1.
  int start_offset[capacity] = {};
  int slot_offset = 0;  ///< two integers a layer: the slots of the first position and of the end in a state
  int size = 0;

  TCNCA_HOST_DEVICE constexpr int area(int b) const { return area_offset[b % 2]; }
};

namespace detail {

/// Where element i of the stage is: a line of 128 bytes is followed by 16 bytes, so that neither the vectors of a line
/// nor those of eight threads with neighbouring chains conflict. A chain of a 16-bit type is half a line: four lines
/// are followed by 64 bytes more.
template <element T>
struct phase_stage {
  static constexpr int line = 128 / int(sizeof(T)), vector = 16 / int(sizeof(T)), block = 4 * line;

  TCNCA_HOST_DEVICE static constexpr int offset(int i) {
    unsigned const n = unsigned(i);  // shifts instead of divisions
    return int(n + n / line * vector + (sizeof(T) == 2 ? n / block * (4 * vector) : 0));
  }
  /// The first element of chain `chunk`, counted from the beginning of the stage, of Outputs elements each.
  template <int Outputs>
  TCNCA_HOST_DEVICE static constexpr int chain_offset(int chunk) {
    static_assert(Outputs % line == 0 || line % Outputs == 0);
    if constexpr (Outputs % line == 0) {
      return chunk * (Outputs + Outputs / line * vector);
    } else {
      return offset(chunk * Outputs);
    }
  }
};

/// Searches the partition of the layers into phases that takes the fewest instructions, as counted by cost().
template <element T, conv_stack_shape Shape, layer_range Layers>
struct phase_planner {
  using A = accumulate_t<T>;
  static constexpr int taps = Shape.taps, threads = 128, tile = sizeof(A) == 8 ? 2048 : 4096;
  static constexpr int outputs_per_thread = tile / threads;
  /// Values of a chain, and of the state of a resident phase, that fit in registers.
  static constexpr int most_values = 96 * 4 / int(sizeof(A)), most_state = 40 * 4 / int(sizeof(A));
  static constexpr int impossible = 1 << 28, fixed_cost = 14;

  static constexpr int dilation(int layer) { return int(Shape.dilation(layer)); }
  static constexpr int stride_of(int first, int last) {
    int d = 0;
    for (int l = first; l < last; l++) d = greatest_common_divisor(d, dilation(l));
    return max_of(d, 1);
  }
  static constexpr int halo_of(int first, int last, int stride) {
    int sum = 0;
    for (int l = first; l < last; l++) sum += (taps - 1) * (dilation(l) / stride);
    return sum;
  }
  static constexpr int activation_cost = Shape.act == activation::none ? 0 : Shape.act == activation::relu ? 1 : 12;
  /// Instructions of the layers for one chain.
  static constexpr int arithmetic(conv_stack_phase const& p) {
    int sum = 0;
    for (int l = p.first; l < p.last; l++) {
      int const recomputed = p.kind == phase_kind::resident ? 0 : halo_of(l + 1, p.last, p.stride);
      sum += (taps + activation_cost) * (p.outputs + recomputed) + taps / 4;
    }
    return sum;
  }
  /// Instructions of a thread and tile.
  static constexpr int cost(conv_stack_phase const& p, bool is_first, bool is_last) {
    if (p.outputs == 0) return impossible;
    int const values = p.outputs + p.halo;
    int memory = 0;
    switch (p.kind) {
      case phase_kind::contiguous:
        memory = divide_up(values, 4) + (is_first && sizeof(T) == 2 ? values : 0) + p.outputs / 4;
        break;
      case phase_kind::strided: memory = values + p.outputs; break;
      case phase_kind::resident: memory = divide_up(p.outputs, 2) + p.halo; break;  // the history moves in registers
    }
    if (is_last && p.kind != phase_kind::resident) memory += p.outputs / 2 + fixed_cost;  // y goes through a buffer
    return p.chains * (memory + arithmetic(p)) + fixed_cost;
  }

  /// Whether the layers of a phase may be computed together: their taps fit in registers. Values that are computed
  /// recomputed lie before the walk only in its first tile, and there either all that precede the outputs of a chain or
  /// none.
  static constexpr bool can_join(conv_stack_phase const& p) {
    return p.last - p.first <= 1 || (taps <= 16 && p.halo * p.stride <= tile && (p.halo <= p.outputs || p.chunks == 1));
  }
  static constexpr conv_stack_phase contiguous(int first, int last) {
    conv_stack_phase p{phase_kind::contiguous, first, last, 1, outputs_per_thread, threads, 1, 0};
    p.halo = halo_of(first, last, 1);
    if (p.halo + p.outputs > most_values || !can_join(p)) p.outputs = 0;
    return p;
  }
  static constexpr conv_stack_phase strided(int first, int last) {
    int const stride = stride_of(first, last), halo = halo_of(first, last, stride);
    conv_stack_phase best;
    for (int outputs = 1; outputs <= 64; outputs++) {
      int const chunks = divide_up(tile, min_of(stride, tile) * outputs);
      if (outputs + halo > most_values || (outputs > 1 && stride * (outputs - 1) >= tile)) break;
      conv_stack_phase const p{phase_kind::strided,
                               first,
                               last,
                               stride,
                               outputs,
                               chunks,
                               divide_up(min_of(stride, tile) * chunks, threads),
                               halo};
      if (!can_join(p)) continue;
      if (best.outputs == 0 || cost(p, false, false) < cost(best, false, false)) best = p;
    }
    return best;
  }
  static constexpr conv_stack_phase resident(int first, int last) {
    int const stride = stride_of(first, last), halo = halo_of(first, last, stride);
    conv_stack_phase p{phase_kind::resident, first, last, stride, 0, 1, stride / threads, halo};
    if (taps <= 20 && stride % threads == 0 && tile % stride == 0 && halo * p.chains <= most_state)
      p.outputs = tile / stride;
    return p;
  }
  /// The best phase after the first one for these layers.
  static constexpr conv_stack_phase later(int first, int last) {
    conv_stack_phase const s = stride_of(first, last) == 1 ? contiguous(first, last) : strided(first, last);
    bool const is_last = last == Layers.last;
    conv_stack_phase const r = is_last ? resident(first, last) : conv_stack_phase{};
    return cost(r, false, is_last) < cost(s, false, is_last) ? r : s;
  }

  static constexpr conv_stack_phase_plan schedule() {
    conv_stack_phase_plan plan;
    plan.threads = threads, plan.tile = tile;
    constexpr int n = Layers.count();
    if (n + 1 > conv_stack_phase_plan::capacity) return plan;
    array<int, n + 1> best = {}, begin = {};  // of the layers before i; begin: of the last phase among them
    for (int i = 0; i <= n; i++) {
      best[i] = i == 0 || stride_of(Layers.first, Layers.first + i) == 1
                    ? cost(contiguous(Layers.first, Layers.first + i), true, i == n)
                    : impossible;
      begin[i] = -1;
      for (int j = 0; j < i; j++) {
        int const c = best[j] + cost(later(Layers.first + j, Layers.first + i), false, i == n);
        if (c < best[i]) best[i] = c, begin[i] = j;
      }
    }
    if (best[n] >= impossible) return plan;
    for (int i = n; i >= 0; i = begin[i]) plan.count++;
    int k = plan.count;
    for (int i = n; i >= 0; i = begin[i])
      plan.phase[--k] =
          begin[i] < 0 ? contiguous(Layers.first, Layers.first + i) : later(Layers.first + begin[i], Layers.first + i);
    return plan;
  }

  /// The layout of a buffer without access conflicts between a warp's threads: contiguous chains by vectors of four,
  /// and strided chains whose stride is a power of two.
  static constexpr padded_layout layout_of(conv_stack_phase const& writer, conv_stack_phase const* reader) {
    padded_layout result;
    auto const is_contiguous = [](conv_stack_phase const& p) { return p.kind == phase_kind::contiguous; };
    bool const vectors = is_contiguous(writer) || (reader && is_contiguous(*reader));
    if (vectors) result.pad = 4;
    conv_stack_phase const* const both[] = {&writer, reader};
    int least = 32;
    for (auto* p : both) {
      if (!p || p->kind != phase_kind::strided || p->stride >= least || (p->stride & (p->stride - 1)) != 0) continue;
      int const block = p->stride * p->outputs;
      if ((block & (block - 1)) != 0 || block < 32) continue;
      least = p->stride;
      result.block_shift = 0;
      while (1 << result.block_shift < block) result.block_shift++;
      int const wanted = vectors ? max_of(p->stride, 4) : p->stride;
      result.block_pad = (wanted - block - result.pad * (block / 32)) % 32;
      if (result.block_pad < 0) result.block_pad += 32;
    }
    return result;
  }

  static constexpr conv_stack_phase_plan make() {
    conv_stack_phase_plan p = schedule();
    if (p.count == 0) return p;
    auto const aligned = [](int n) { return round_up(n, 32); };
    int area[2] = {};
    for (int b = 0; b < p.count; b++) {
      p.buffer[b] = layout_of(p.phase[b], b + 1 < p.count ? &p.phase[b + 1] : nullptr);
      area[b % 2] = max_of(area[b % 2], aligned(p.buffer[b](tile)));
    }
    p.area_offset[0] = 0, p.area_offset[1] = area[0], p.size = area[0] + area[1];
    for (int b = 0; b + 1 < p.count; b++) {
      auto const& reader = p.phase[b + 1];
      if (reader.kind == phase_kind::resident) continue;
      p.history[b] = (reader.kind == phase_kind::contiguous ? round_up(reader.halo, 4) : reader.halo) * reader.stride;
      p.size += aligned(-p.buffer[b](-p.history[b]));
      p.history_offset[b] = p.size;
    }
    constexpr int line = 128 / int(sizeof(T));
    p.stage_offset = p.size, p.stage_halo = round_up(p.phase[0].halo, max_of(line, outputs_per_thread));
    p.size += aligned(divide_up(phase_stage<T>::offset(p.stage_halo + tile) * int(sizeof(T)), int(sizeof(A))));
    p.weight_offset = p.size, p.weight_step = round_up(taps, 4);
    p.size += Layers.count() * (p.weight_step + 1);
    for (int i = 0; i < p.count; i++)
      for (int l = p.phase[i].first; l < p.phase[i].last; l++) {
        bool const stored = p.phase[i].kind != phase_kind::resident && (i == 0 || l > p.phase[i].first);
        p.start_offset[l - Layers.first] = stored ? p.size : -1;
        if (stored) p.size += int(Shape.history(l));
      }
    p.slot_offset = p.size;
    p.size = round_up(p.size + 2 * Layers.count(), 4);
    return p;
  }

  static constexpr bool is_supported() {
    if (!(Layers.first >= 0 && Layers.first < Layers.last && Layers.last <= Shape.layers())) return false;
    if (Shape.dir != direction::causal || Shape.skip) return false;
    if (Shape.residuals == residual::block || (Shape.residuals == residual::level && Shape.convolutions != 1))
      return false;
    return history_of(Shape, Layers) <= 16384;
  }
};

/// The plan of a pass; count is 0 if there is none.
template <element T, conv_stack_shape Shape, layer_range Layers>
constexpr conv_stack_phase_plan make_conv_stack_phase_plan() {
  if constexpr (phase_planner<T, Shape, Layers>::is_supported()) {
    conv_stack_phase_plan const p = phase_planner<T, Shape, Layers>::make();
    constexpr int limit = 160 * 1024;  // bytes of shared memory of a block on sm_80
    if (p.size * int(sizeof(accumulate_t<T>)) <= limit) return p;
  }
  return conv_stack_phase_plan{};
}

}  // namespace detail

/// The schedule of the register-phase kernel for layers of a stack.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr conv_stack_phase_plan phase_forward_plan = detail::make_conv_stack_phase_plan<T, Shape, Layers>();

/// Whether conv_stack_phase_forward_agent can compute these layers (channels-last on sm_90a only): causal, without a
/// skip connection, residuals around single convolutions at most, and inputs before a tile that fit in shared memory.
template <element T, conv_stack_shape Shape, layer_range Layers>
inline constexpr bool has_phase_forward_plan = phase_forward_plan<T, Shape, Layers>.count > 0;

}  // namespace tcnca
