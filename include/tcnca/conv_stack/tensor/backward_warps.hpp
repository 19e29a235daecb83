// What a warp of the tensor-core backward kernel does with rings in shared memory: addresses, blocks as fragments,
// products of blocks with the banded matrices of a level's weights.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/agent.hpp"
#include "../../block/mma.hpp"
#include "backward_plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// N blocks in the registers of a warp; two registers of a lane each, an A operand of m16n8k8.
template <int N>
struct tensor_blocks {
  array<uint32[2], N> registers;

  TCNCA_HOST_DEVICE uint32 (&operator[](int i))[2] { return registers[i]; }
  TCNCA_HOST_DEVICE uint32 const (&operator[](int i) const)[2] { return registers[i]; }
};

/// A warp and the group's rings. All functions are called by whole warps.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers, int MaxBytes>
struct tensor_backward_warps {
  static constexpr tensor_backward_plan plan = tensor_backward_plan_of<Shape, Layers, MaxBytes>;
  static_assert(plan.exists, "the tensor-core backward kernel has no plan for these layers");
  static_assert(Group::size() == plan.threads());
  static constexpr int tile = plan.tile, depth = plan.levels, taps = Shape.taps, threads = plan.threads();
  static constexpr bool has_activation = Shape.act != activation::none, is_relu = Shape.act == activation::relu,
                        has_residual = Shape.residuals != residual::none, keeps_sums = has_residual && has_activation;
  using warp_type = warp_of<Group>;
  using address_type = typename warp_type::address_type;
  template <int L>
  static constexpr tensor_backward_level level = plan.level[L];
  /// Units of a warp in a window of level L: `blocks` neighbouring blocks each.
  template <int L>
  static constexpr int units = tensor_backward_plan::blocks_per_warp / plan.level[L].blocks;
  /// Blocks of a unit and those that it depends on.
  template <int L>
  static constexpr int loaded = plan.level[L].blocks + plan.level[L].history;
  template <int L>
  using unit_blocks = tensor_blocks<plan.level[L].blocks>;
  template <int L>
  using loaded_blocks = tensor_blocks<loaded<L>>;

  Group group;
  warp_type warp{};
  address_type shared;  // of the group
  int lane, warp_index;
  array<uint32, plan.products> weights_;  // fragments of the banded matrices of all levels: forward, then backward

  TCNCA_HOST_DEVICE tensor_backward_warps(Group g, void* shared_memory)
      : group(g), shared(warp_type::address(shared_memory)), lane(g.rank() % warp_size), warp_index(0) {
    warp_index = warp.uniform(g.rank() / warp_size);
  }

  TCNCA_HOST_DEVICE void read_weights() {
    unroll<0, plan.products>([&](auto i) TCNCA_INLINE {
      uint32 word[1];
      warp.load_shared(word, shared + uint32(plan.weights + 128 * i + 4 * lane));
      weights_[i] = word[0];
    });
  }

  // Rings. The newest tile begins at a multiple of the tile; rings of the same length share the place of its beginning.

  static constexpr int rings = 4 * depth + 1;
  array<uint32, rings> origin_;  // bytes from the beginning of the ring, see origin()
  TCNCA_HOST_DEVICE static constexpr int ring_length(int i) {
    tensor_backward_level const& l = plan.level[i / 4 < depth ? i / 4 : 0];
    return i / 4 == depth ? plan.grad_y.length
           : i % 4 == 0   ? l.input.length
           : i % 4 == 1   ? l.gradient.length
           : i % 4 == 2   ? l.sum.length
                          : l.output_gradient.length;
  }
  /// The first ring of this length.
  TCNCA_HOST_DEVICE static constexpr int ring_of_length(int length) {
    int i = 0;
    while (ring_length(i) != length) i++;
    return i;
  }
  /// Rings of this length are addressed from `origin` positions before the newest tile on: the longest history that a
  /// level reads forward. So no access of a level begins before the origin and ends after it.
  TCNCA_HOST_DEVICE static constexpr int origin(int length) {
    int n = 0;
    for (int i = 0; i < depth; i++)
      if (plan.level[i].input.length == length) n = max_of(n, plan.level[i].history * plan.level[i].block_distance());
    return round_up(n, 64);
  }
  TCNCA_HOST_DEVICE void reset_rings() {
    unroll<0, rings>([&](auto i) TCNCA_INLINE {
      constexpr int n = origin(ring_length(i));
      origin_[i] = n > 0 ? 2 * uint32(ring_length(i) - n) : 0;
    });
  }
  TCNCA_HOST_DEVICE void advance_rings() {
    unroll<0, rings>([&](auto i) TCNCA_INLINE {
      constexpr int length = ring_length(i);
      if constexpr (length > tile && ring_of_length(length) == i) {
        origin_[i] = min_of(origin_[i] + 2 * tile, origin_[i] + 2 * tile - 2 * uint32(length));
      }
    });
  }

  /// Address in a ring of the position From + More + offset, counted from the beginning of the newest tile;
  /// 0 <= offset < Reach. From is a multiple of the period unless More is 0. `offset` and More have no common bits.
  template <tensor_backward_ring R, int From, int Reach = tile, int More = 0>
  TCNCA_HOST_DEVICE address_type address(int offset) const {
    constexpr int period = R.period, length = R.length;
    constexpr int low = (From + 1024 * tile) % period, line = More / 64 * 64;
    constexpr int total = From + line + origin(length);
    constexpr int from = total < 0 ? -((-total - 1) % length + 1) : total;  // from the origin
    constexpr int high = from - low;
    constexpr uint32 image = tensor_backward_plan::swizzled<period>(More) ^ uint32(2 * line);
    static_assert(from <= length - Reach && period <= tile && high % 64 == 0 && (More == 0 || low == 0));
    static_assert(image < 128 && length % 64 == 0 && R.offset % 128 == 0);
    uint32 at = tensor_backward_plan::swizzled<period>(offset + low);
    if constexpr (length == tile) {
      at += uint32(2 * high);
    } else if constexpr (from < 0 && from + Reach > 0) {  // only some offsets are before the origin
      uint32 const begin = origin_[ring_of_length(length)] + uint32(2 * (length + high));
      at += min_of(begin, begin - uint32(2 * length));
      at = min_of(at, at - uint32(2 * length));
    } else {
      at += origin_[ring_of_length(length)] + uint32(2 * (from < 0 ? length + high : high));
      at = min_of(at, at - uint32(2 * length));
    }
    return (shared + uint32(R.offset) + at) ^ image;
  }

  /// Where the vectors of a tile are in ring R, for channel_loader::scatter: From positions after the newest tile.
  template <tensor_backward_ring R, int From>
  TCNCA_HOST_DEVICE auto ring_place() const {
    return [this](int position, auto further) TCNCA_INLINE {
      constexpr int more = decltype(further)::value;
      return this->template address<R, From + more, tile - more>(position);
    };
  }

  /// Stores a vector of 8 positions in global memory, aligned to 16 bytes.
  TCNCA_HOST_DEVICE static void store_vector(T* to, uint32 const (&words)[4]) {
    struct alignas(16) vector {
      uint32 word[4];
    };
    vector const v = {{words[0], words[1], words[2], words[3]}};
#if defined(__CUDA_ARCH__)
    *reinterpret_cast<vector*>(to) = v;
#else
    __builtin_memcpy(to, &v, 16);
#endif
  }

  // Units. Positions are counted from the beginning of the window.

  template <int L>
  TCNCA_HOST_DEVICE int unit_position() const {
    constexpr tensor_backward_level v = level<L>;
    if constexpr (v.lines()) {
      constexpr int parts = v.line / (8 * v.blocks);
      return warp_index / parts * (16 * v.line) + warp_index % parts * (8 * v.blocks);
    } else {
      constexpr int groups = v.row / 16;
      return warp_index % groups * 16 + warp_index / groups * (8 * v.blocks * v.row);
    }
  }
  /// Distance of unit U of a warp from its first one.
  template <int L, int U>
  static constexpr int unit_distance = U == 0 ? 0
                                       : plan.level[L].row / 16 % plan.warps == 0
                                           ? U* plan.warps * 16
                                           : U* plan.warps / max_of(1, plan.level[L].row / 16) *
                                                 (8 * plan.level[L].blocks * plan.level[L].row);
  /// Position in a unit of the row of 8 elements that a lane passes for two neighbouring blocks: the registers are
  /// those of the first block, then those of the second.
  template <int L>
  TCNCA_HOST_DEVICE static constexpr int matrix_row(int lane) {
    constexpr tensor_backward_level v = level<L>;
    int const row = lane % 8, half = lane / 8 % 2, block = lane / 16;
    return v.lines() ? (row + half * 8) * v.line + block * 8 : (row + block * 8) * v.row + half * 8;
  }
  /// Position in a unit of element e of register `half` of block b.
  template <int L>
  TCNCA_HOST_DEVICE int element_position(int b, int half, int e) const {
    constexpr tensor_backward_level v = level<L>;
    int const row = b * 8 + lane % 4 * 2 + e, line = lane / 4 + half * 8;
    return v.lines() ? line * v.line + row : row * v.row + line;
  }
  /// Positions from the beginning of a window to the end of two blocks of the first unit of any warp.
  template <int L>
  static constexpr int reach = tile - unit_distance<L, units<L> - 1> -
                               (plan.level[L].blocks - 2) * plan.level[L].block_distance();

  /// Address of this lane's row of blocks B and B + 1 of unit U of a window, which begins From positions after the
  /// newest tile.
  template <int L, int U, tensor_backward_ring R, int From, int B>
  TCNCA_HOST_DEVICE address_type block_address(int row) const {
    constexpr int first = From + unit_distance<L, U>, distance = B * level<L>.block_distance();
    constexpr int span = 8 * level<L>.blocks * level<L>.row;  // of the rows of a unit
    // The distance of a unit's own blocks has no common bits with the positions of its first two.
    if constexpr (B > 0 && B < level<L>.blocks && first % R.period == 0) {
      if constexpr (!level<L>.lines() && first % span == 0 && R.length % span == 0) {  // no unit wraps around
        constexpr int line = distance / 64 * 64;
        constexpr uint32 image = tensor_backward_plan::swizzled<R.period>(distance) ^ uint32(2 * line);
        return (address<R, first, reach<L>>(row) ^ image) + uint32(2 * line);
      } else {
        return address<R, first, reach<L>, distance>(row);
      }
    } else {
      return address<R, first + distance, reach<L>>(row);
    }
  }
  /// Loads N blocks of unit U of a window, from block First of the unit on.
  template <int L, int U, tensor_backward_ring R, int From, int First, int N>
  TCNCA_HOST_DEVICE void load_blocks(tensor_blocks<N>& q) const {
    int const row = unit_position<L>() + matrix_row<L>(lane);
    constexpr int alone = First < 0 ? -First % 2 : 0;  // so that pairs begin with an even block of the unit
    unroll<0, divide_up(N + alone, 2)>([&](auto pair) TCNCA_INLINE {
      constexpr int i = 2 * int(pair) - alone, first = max_of(i, 0);
      auto const at = block_address<L, U, R, From, First + first>(row);
      if constexpr (i >= 0 && i + 1 < N) {
        uint32 r[4];
        if constexpr (level<L>.lines()) {
          warp.load_matrices(r, at);
        } else {
          warp.load_matrices_transposed(r, at);
        }
        q[i][0] = r[0], q[i][1] = r[1], q[i + 1][0] = r[2], q[i + 1][1] = r[3];
      } else if constexpr (level<L>.lines()) {
        warp.load_two_matrices(q[first][0], q[first][1], at);
      } else {
        warp.load_two_matrices_transposed(q[first][0], q[first][1], at);
      }
    });
  }
  /// Stores the blocks of unit U.
  template <int L, int U, tensor_backward_ring R, int From>
  TCNCA_HOST_DEVICE void store_blocks(unit_blocks<L> const& q) const {
    unroll<0, level<L>.blocks / 2>([&](auto pair) TCNCA_INLINE {
      constexpr int b = 2 * int(pair);
      if constexpr (warp_type::stores_matrices) {
        uint32 const r[4] = {q[b][0], q[b][1], q[b + 1][0], q[b + 1][1]};
        auto const at = block_address<L, U, R, From, b>(unit_position<L>() + matrix_row<L>(lane));
        if constexpr (level<L>.lines()) {
          warp.store_matrices(at, r);
        } else {
          warp.store_matrices_transposed(at, r);
        }
      } else {
        // Two elements of a lane: a word of the row lane / 4 of a matrix, after a transposition if lines are
        // neighbours.
        unroll<0, 4>([&](auto m) TCNCA_INLINE {
          auto const row = block_address<L, U, R, From, b>(unit_position<L>() + matrix_row<L>(8 * m + lane / 4));
          uint32 x = q[b + m / 2][m % 2];
          if constexpr (!level<L>.lines()) { x = warp.transpose_matrix(x); }
          uint32 const word[1] = {x};
          warp.store_shared(row + uint32(lane % 4 * 4), word);
        });
      }
    });
  }

  /// d = c + the product of blocks First to First + history with the level's weights. Pairs: index of the first block
  /// that begins a pair in consecutive registers, 0 or 1.
  template <int L, int First, int Pairs, bool Backward, int N>
  TCNCA_HOST_DEVICE void convolve(float (&d)[4], float const (&c)[4], tensor_blocks<N> const& q) const {
    convolve_from<0, level<L>.history + 1, level<L>.products + (Backward ? level<L>.history + 1 : 0), First, Pairs>(
        d, c, q);
  }
  template <int I, int Count, int Weights, int First, int Pairs, int N>
  TCNCA_HOST_DEVICE void convolve_from(float (&d)[4], float const (&c)[4], tensor_blocks<N> const& q) const {
    constexpr int b = First + I;
    if constexpr (I + 1 < Count && I % 2 == 0 && (b + Pairs) % 2 == 0) {
      warp.template multiply<T>(d, c, q[b][0], q[b][1], q[b + 1][0], q[b + 1][1], weights_[Weights + I],
                                weights_[Weights + I + 1]);
      if constexpr (I + 2 < Count) { convolve_from<I + 2, Count, Weights, First, Pairs>(d, d, q); }
    } else {
      warp.template multiply<T>(d, c, q[b][0], q[b][1], weights_[Weights + I]);
      if constexpr (I + 1 < Count) { convolve_from<I + 1, Count, Weights, First, Pairs>(d, d, q); }
    }
  }

  // Elements.

  static constexpr uint32 ones = same<T, bf16> ? 0x3f803f80u : 0x3c003c00u;

  TCNCA_HOST_DEVICE static uint32 rounded(float low, float high) { return element_pair<T>(low, high); }
  /// Value and derivative of the activation. SiLU on a GPU with approximate instructions, to 2^-20 of its magnitude.
  TCNCA_HOST_DEVICE static value_and_derivative<float, 1> activation_at(float sum) {
#if defined(__CUDA_ARCH__)
    if constexpr (Shape.act == activation::silu) {
      float const s = reciprocal(1.f + exp2_or_zero(-1.4426950408889634f * sum)), y = sum * s;
      return {broadcast<1>(y), broadcast<1>(::fma(y, 1.f - s, s))};
    }
#endif
    return activate<Shape.act>(broadcast<1>(sum));
  }
  TCNCA_HOST_DEVICE static float activation_of(float sum) { return activation_at(sum).value.lane(0); }
  TCNCA_HOST_DEVICE static float derivative(float sum) { return activation_at(sum).derivative.lane(0); }
  /// The activation of two sums, rounded.
  TCNCA_HOST_DEVICE static uint32 activated(float low, float high) {
    if constexpr (is_relu) {
      return element_pair_relu<T>(low, high);
    } else {
      return element_pair<T>(activation_of(low), activation_of(high));
    }
  }
  TCNCA_HOST_DEVICE static uint32 activated(uint32 sums) {
    return activated(element_of_pair<T>(sums, 0), element_of_pair<T>(sums, 1));
  }
  /// All ones in each half of x that is positive; x has no negative elements.
  TCNCA_HOST_DEVICE static uint32 positive(uint32 x) {
#if defined(__CUDA_ARCH__)
    return detail::positive_halves(x);
#else
    return (x & 0x7fffu ? 0xffffu : 0) | (x & 0x7fff0000u ? 0xffff0000u : 0);
#endif
  }
};

}  // namespace tcnca::detail
