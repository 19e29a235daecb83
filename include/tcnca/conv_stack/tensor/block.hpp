// What the stages of the tensor-core forward kernel have in common: rings in shared memory, the table of items, the
// load of a tile of x and the store of a tile of y.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/agent.hpp"
#include "../../block/cluster.hpp"
#include "../../block/mma.hpp"
#include "plan.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The input ring of stage R (or the output ring, R = number of stages): tiles of T in the order of their positions.
/// Within each 128 bytes the vectors of 16 bytes are exchanged, so that neither the writer's nor the reader's matrices
/// have bank conflicts. The exchange is linear over the bits of a position: parts of a position can be exchanged apart.
template <conv_stack_shape Shape, layer_range Layers, int R>
struct tensor_ring {
  static constexpr int tile_bytes = 2 * tensor_plan_of<Shape, Layers>.tile;
  static constexpr int bytes = tensor_plan_of<Shape, Layers>.stage[R].slots * tile_bytes;
  static constexpr int begin = tensor_plan_of<Shape, Layers>.stage[R].ring;

  /// Byte offset of a position from the tile's first byte.
  TCNCA_HOST_DEVICE static constexpr uint32 offset(uint32 position) {
    constexpr int a = tensor_plan_of<Shape, Layers>.stage[R].shift[0],
                  b = tensor_plan_of<Shape, Layers>.stage[R].shift[1];
    uint32 const vector = position >> 3;
    uint32 exchange = 0;
    if constexpr (a > 0) { exchange ^= vector >> a; }
    if constexpr (b > 0) { exchange ^= vector >> b; }
    return 2 * position ^ (exchange & 7) << 4;
  }
  /// An address moved by positions whose bits the address's position does not have. An immediate of the instruction
  /// where the exchange is the same.
  template <class Address>
  TCNCA_HOST_DEVICE static constexpr Address moved(Address at, uint32 positions) {
    uint32 const c = offset(positions);
    return (at ^ (c & 0x70u)) + (c & ~0x70u);
  }
};

/// An item of the pass: a segment of a row, and the positions [first, end) that are computed for it. Outputs before
/// `begin` belong to the segment before; they are computed for their successors, and not written.
struct tensor_item {
  static constexpr int is_last = 1, reads_state = 2, writes_state = 4;
  int batch, channel, first, begin, end, flags;
};

/// x in a register of its own, which the compiler cannot see to be x: n is not negative and `number` not 0. A product
/// takes operands from aligned pairs and quads of registers; a value that several operands share would be moved for
/// every product, and a value in a uniform register (so n should differ between lanes) as well.
TCNCA_HOST_DEVICE uint32 distinct_copy(uint32 x, int n, int number) { return x | uint32(n >> 31 & number); }
TCNCA_HOST_DEVICE float float_of_bits(uint32 x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return __uint_as_float(x);
#else
  return bits_as<float>(x);
#endif
}
TCNCA_HOST_DEVICE uint32 bits_of_float(float x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return __float_as_uint(x);
#else
  return bits_as<uint32>(x);
#endif
}

/// The first or the second of two types.
template <int Index, class First, class>
struct tensor_select {
  using type = First;
};
template <class First, class Second>
struct tensor_select<1, First, Second> {
  using type = Second;
};

/// A(x), to be rounded to a 16-bit type: SiLU by approximate instructions, to 2^-21 |x|.
template <activation A>
TCNCA_HOST_DEVICE float activate_to_16bit(float x) {
#if defined(__CUDA_ARCH__)
  if constexpr (A == activation::silu) {
    return x * reciprocal(1.f + exp2_or_zero(-1.4426950408889634f * x));
  } else {
    return activate<A>(broadcast<1>(x)).value.lane(0);
  }
#else
  return activate<A>(broadcast<1>(x)).value.lane(0);
#endif
}

/// f(first), f(first + stride), ... below end, in a loop that is not unrolled.
template <class F>
TCNCA_HOST_DEVICE void rolled_loop(int first, int end, int stride, F f) {
#if defined(__CUDA_ARCH__)
#pragma unroll 1
#endif
  for (int i = first; i < end; i += stride) f(i);
}

/// Threads, parameters and shared memory of a block.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct tensor_block {
  static constexpr tensor_plan plan = tensor_plan_of<Shape, Layers>;
  static constexpr int tile = plan.tile, stages = plan.stages, last = stages - 1;
  static constexpr conv_stack_shape shape = Shape;
  static constexpr layer_range layer_numbers = Layers;
  static constexpr bool adds_residual = Shape.residuals == residual::level;
  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;
  using element_type = T;
  using group_type = Group;
  using params_type = conv_stack_pass_params<T, parameter_t<T, Shape.weights>>;
  using address_type = typename warp_of<Group>::address_type;
  template <int R>
  using ring = tensor_ring<Shape, Layers, R>;

  params_type const& params;
  Group group;
  warp_of<Group> warp;
  cluster_of<Group, channels_last ? 8 : 1> cluster;  // channels-last: one channel a block
  address_type memory;
  int lane, warp_index;

  TCNCA_HOST_DEVICE tensor_block(Group g, params_type const& p, void* shared)
      : params(p),
        group(g),
        warp{},
        memory(warp_of<Group>::address(shared)),
        lane(g.rank() % 32),
        warp_index(warp.uniform(g.rank() / 32)) {
    if constexpr (channels_last) { cluster.sync(); }
  }

  /// This block's channel among those of its cluster.
  TCNCA_HOST_DEVICE int rank() const {
    if constexpr (channels_last) {
      return cluster.rank();
    } else {
      return 0;
    }
  }
  /// The barrier before a step. Channels-last: it also completes the barrier of the cluster at which all warps have
  /// arrived in the step before.
  TCNCA_HOST_DEVICE void begin_step() const {
    if constexpr (channels_last) { cluster.wait(); }
    group.sync();
  }
  /// After the stores of a step to other blocks' memory, before the stages compute.
  TCNCA_HOST_DEVICE void arrive() const {
    if constexpr (channels_last) { cluster.arrive(); }
  }

  /// The next tile's place in ring R.
  template <int R>
  TCNCA_HOST_DEVICE address_type next_tile(address_type at) const {
    at += address_type(ring<R>::tile_bytes);
    return at == memory + address_type(ring<R>::begin + ring<R>::bytes) ? memory + address_type(ring<R>::begin) : at;
  }

  /// What a tile's number t in its item adds to the exchange of vectors in ring R, whose rows may be longer than
  /// a tile.
  template <int R>
  TCNCA_HOST_DEVICE static uint32 tile_exchange(int t) {
    constexpr int tiles_per_period = max_of(1, 8 * plan.stage[R].row / tile);
    return tiles_per_period == 1 ? 0 : ring<R>::offset(uint32(t % tiles_per_period * tile)) & 0x70u;
  }

  // Items: entry n % entries of the table holds the block's n-th item, its weights and biases.

  TCNCA_HOST_DEVICE address_type entry(uint32 n) const {
    return memory + address_type(plan.table) + address_type(n % tensor_plan::entries * uint32(plan.entry_bytes));
  }
  TCNCA_HOST_DEVICE tensor_item item(address_type entry) const {
    uint32 low[4], high[2];
    warp.load_shared(low, entry), warp.load_shared(high, entry + 16);
    return {int(low[0]), int(low[1]), int(low[2]), int(low[3]), int(high[0]), int(high[1])};
  }
  TCNCA_HOST_DEVICE void store_item(address_type entry, tensor_item const& i) const {
    warp.store_shared(entry, {uint32(i.batch), uint32(i.channel), uint32(i.first), uint32(i.begin)});
    warp.store_shared(entry + 16, {uint32(i.end), uint32(i.flags)});
  }
  static TCNCA_HOST_DEVICE constexpr int tiles(tensor_item const& i) { return divide_up(i.end - i.first, tile); }
  /// Position of value `index` of a row of x or y in memory.
  template <class View>
  TCNCA_HOST_DEVICE static auto row(View const& v, tensor_item const& i) {
    return v.data + (i.batch * v.stride[0] + i.channel * v.stride[1]);
  }

  // Positions of a warp's blocks in a tile.

  /// Position of a lane's row of a pair of blocks, or (rows = false) of the first element of a lane's fragment.
  template <int G>
  TCNCA_HOST_DEVICE int lane_position(bool rows) const {
    constexpr tensor_stage g = plan.stage[G];
    if constexpr (g.kind == tensor_stage_kind::lines) {
      return rows ? (lane / 8 % 2 * 8 + lane % 8) * (8 * g.blocks) + lane / 16 * 8
                  : lane / 4 * (8 * g.blocks) + lane % 4 * 2;
    } else if constexpr (g.kind == tensor_stage_kind::walk) {
      return rows ? (lane / 16 * 8 + lane % 8) * g.row + lane / 8 % 2 * 8 : lane % 4 * 2 * g.row + lane / 4;
    } else {
      return rows ? lane % 8 * g.row + lane / 8 * 8 : lane % 4 * 2 * g.row + lane / 4;
    }
  }
  /// First position of this warp's part of a tile.
  template <int G>
  TCNCA_HOST_DEVICE int warp_position() const {
    constexpr tensor_stage g = plan.stage[G];
    int const w = warp_index - g.first_warp;
    if constexpr (g.kind == tensor_stage_kind::lines) {
      return w * (128 * g.blocks);
    } else if constexpr (g.kind == tensor_stage_kind::walk) {
      return w % (g.row / 16) * 16 + w / (g.row / 16) * (8 * g.blocks * g.row);
    } else {
      return w * (16 * g.groups);
    }
  }

  // Fragments.

  /// Outputs of a layer from two sums: activation, residual (`inputs` are the layer's inputs at the same positions),
  /// rounding.
  TCNCA_HOST_DEVICE static uint32 outputs(float low, float high, [[maybe_unused]] uint32 inputs) {
    if constexpr (Shape.act == activation::relu && !adds_residual) {
      return element_pair_relu<T>(low, high);
    } else {
      low = activate_to_16bit<Shape.act>(low), high = activate_to_16bit<Shape.act>(high);
      if constexpr (adds_residual) { low += element_of_pair<T>(inputs, 0), high += element_of_pair<T>(inputs, 1); }
      return element_pair<T>(low, high);
    }
  }
  /// Loads four matrices of stage G's inputs.
  template <int G>
  TCNCA_HOST_DEVICE void load_fragments(uint32 (&r)[4], address_type row) const {
    if constexpr (plan.stage[G].kind == tensor_stage_kind::lines) {
      warp.load_matrices(r, row);
    } else {
      warp.load_matrices_transposed(r, row);
    }
  }
  /// Stores a pair of blocks of stage G to ring To: at the row that lane_position names, or without stmatrix element by
  /// element; `next` is then the address of the second element of a register, a row on.
  template <int G, class To>
  TCNCA_HOST_DEVICE void store_fragments(address_type at, [[maybe_unused]] address_type next,
                                         uint32 const (&v)[4]) const {
    if constexpr (warp_of<Group>::stores_matrices) {
      if constexpr (plan.stage[G].kind == tensor_stage_kind::lines) {
        warp.store_matrices(at, v);
      } else {
        warp.store_matrices_transposed(at, v);
      }
    } else {
      unroll<0, 4>([&](auto i) TCNCA_INLINE {
        if constexpr (plan.stage[G].kind == tensor_stage_kind::lines) {
          warp.store_shared(To::moved(at, i / 2 * 8 + i % 2 * 8 * (8 * plan.stage[G].blocks)), {v[i]});
        } else {
          constexpr uint32 position =
              plan.stage[G].kind == tensor_stage_kind::walk ? i / 2 * 8 * plan.stage[G].row + i % 2 * 8 : i * 8;
          warp.store_shared_16(To::moved(at, position), uint16(v[i]));
          warp.store_shared_16(To::moved(next, position), uint16(v[i] >> 16));
        }
      });
    }
  }

  // x and y in memory.

  /// Copies the positions [0, tile) of a row of x to shared memory; zeros from position `left` on. Called by the
  /// threads of the first stage, each with its rank; ends without commit or barrier.
  TCNCA_HOST_DEVICE void load_tile(address_type to, T const* x, int left) const {
    constexpr int loaders = 32 * plan.stage[0].warps;
    using R = ring<0>;
    int const first = group.rank() * 8;
    to += R::offset(uint32(first)), x += first, left -= first;
    if (params.x_vectorizable && (left >= tile || left % 8 == 0)) {
      unroll<0, tile / 8 / loaders>([&](auto i) TCNCA_INLINE {
        constexpr int position = i * (loaders * 8);
        warp.copy_16(R::moved(to, position), position < left ? x + position : params.x.data, position < left);
      });
    } else {
      int const offset = elements_after_alignment(x);
      // Whether the two aligned vectors that contain a vector of 8 positions are in the row.
      auto const inside = [&](int position)
                              TCNCA_INLINE { return first + position > 0 && position - offset + 16 <= left; };
      unroll<0, tile / 8 / loaders>([&](auto i) TCNCA_INLINE {
        constexpr int position = i * (loaders * 8);
        if (inside(position)) {
          vector const v =
              realign(load_vector(x + (position - offset)), load_vector(x + (position - offset + 8)), offset);
          warp.store_shared(R::moved(to, position), v.words);
        }
      });
      rolled_loop(0, tile, loaders * 8, [&](int position) TCNCA_INLINE {
        if (inside(position)) return;
        uint32 v[4] = {};
        TCNCA_UNROLL
        for (int i = 0; i < 8; i++) v[i / 2] |= uint32(position + i < left ? x[position + i].bits : 0) << (i % 2 * 16);
        warp.store_shared(R::moved(to, uint32(position)), v);
      });
    }
  }

  /// Copies `Rows` rows, `Step` positions apart, of `Vectors` vectors of 8 positions, which this warp has stored in
  /// shared memory, to y. `y` is the tile's position 0 in memory, `first` the position of the first row; only positions
  /// in [skip, left) are written. address(position, constant) is the place of the sum. Called by a warp.
  template <int Rows, int Vectors, int Step, class Address>
  TCNCA_HOST_DEVICE void store_tile(T* y, int first, int skip, int left, Address address) const {
    constexpr int rounds = Rows * Vectors / 32;
    constexpr int apart = Vectors <= 32 ? 32 / Vectors * Step : 256;  // positions from round to round
    static_assert(Rows * Vectors % 32 == 0 && (Vectors <= 32 || Rows == 1));
    warp.sync();
    int const position = first + (Vectors <= 32 ? lane / Vectors * Step + lane % Vectors * 8 : lane * 8);
    bool const all = skip <= 0 && left >= first + (Rows - 1) * Step + Vectors * 8;
    if (params.y_vectorizable && all) {
      unroll<0, rounds>([&](auto r) TCNCA_INLINE {
        store_vector(y + position + r * apart, address(position, constant<r * apart>{}));
      });
    } else if (params.y_vectorizable && left % 8 == 0) {
      unroll<0, rounds>([&](auto r) TCNCA_INLINE {
        int const at = position + r * apart;
        if (at >= skip && at < left) store_vector(y + at, address(position, constant<r * apart>{}));
      });
    } else if (skip < (Rows - 1) * Step + Vectors * 8 + first) {
      // The aligned vectors of each row of y, then the 8 elements before the first and after the last of them.
      constexpr int count = Vectors - 1;
      int const head = (8 - elements_after_alignment(y)) % 8;
      auto const store_element = [&](int at) TCNCA_INLINE {
        if (at >= skip && at < left)
          y[at] = T{warp.load_shared_16(address(at & ~7, constant<0>{}) + address_type(at % 8 * 2))};
      };
      rolled_loop(lane, Rows * count, 32, [&](int i) TCNCA_INLINE {
        int const from = first + i / count * Step + i % count * 8, at = from + head;
        if (at >= skip && at + 8 <= left) {
          vector begin, end;
          warp.load_shared(begin.words, address(from, constant<0>{}));
          warp.load_shared(end.words, address(from + 8, constant<0>{}));
          *reinterpret_cast<vector*>(y + at) = realign(begin, end, head);
        } else if (at + 8 > skip && at < left) {
          rolled_loop(at, at + 8, 1, store_element);
        }
      });
      rolled_loop(lane, Rows * 8, 32, [&](int i) TCNCA_INLINE {
        store_element(first + i / 8 * Step + i % 8 + (i % 8 < head ? 0 : count * 8));
      });
    }
  }

 private:
  struct alignas(16) vector {
    uint32 words[4];
  };
  /// 16 aligned bytes of global memory that no thread writes, in one access: not split where the words are selected.
  TCNCA_HOST_DEVICE static vector load_vector(T const* from) {
#if defined(__CUDA_ARCH__)
    uint4 const v = __ldg(reinterpret_cast<uint4 const*>(from));
    return {{v.x, v.y, v.z, v.w}};
#else
    vector v;
    __builtin_memcpy(&v, from, sizeof v);
    return v;
#endif
  }
  TCNCA_HOST_DEVICE void store_vector(T* to, address_type from) const {
    vector v;
    warp.load_shared(v.words, from);
    *reinterpret_cast<vector*>(to) = v;
  }
  /// Elements between the 16-byte boundary before p, and p.
  TCNCA_HOST_DEVICE static int elements_after_alignment(T const* p) {
    return int(reinterpret_cast<size_t>(p) / sizeof(T) % 8);
  }
  /// The elements n to n + 7 of a and b together; n < 8.
  TCNCA_HOST_DEVICE static vector realign(vector const& a, vector const& b, int n) {
    uint32 w[8];
    TCNCA_UNROLL
    for (int i = 0; i < 4; i++) w[i] = a.words[i], w[i + 4] = b.words[i];
    TCNCA_UNROLL
    for (int i = 0; i < 6; i++) w[i] = n & 4 ? w[i + 2] : w[i];
    TCNCA_UNROLL
    for (int i = 0; i < 5; i++) w[i] = n & 2 ? w[i + 1] : w[i];
    vector v;
    TCNCA_UNROLL
    for (int i = 0; i < 4; i++) v.words[i] = uint32((uint64(w[i + 1]) << 32 | w[i]) >> (n & 1 ? 16 : 0));
    return v;
  }
};

}  // namespace tcnca::detail
