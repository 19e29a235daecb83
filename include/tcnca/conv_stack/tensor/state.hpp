// The state in the tensor-core forward kernel. All of this runs only in the first and in the last tiles of a row.
//
// The inputs of a stage's first layer before the sequence go to the stage's ring (lines, walk) or into registers
// (owned, burst), those of its other layers to a table of fragments in shared memory, which only the lane that wrote
// a fragment
// reads. Inputs for the final state come from the ring, or from fragments that a warp has stored.
#pragma once
#include "block.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The slots of one layer in one row of a state. Index i is the i-th oldest of `history` inputs.
template <class U>
struct tensor_state_row {
  U* data = nullptr;
  index_t stride = 0;
  int history = 0, oldest = 0;  // slot of index 0

  /// `position`: absolute position of the input with index 0.
  TCNCA_HOST_DEVICE tensor_state_row(sequence_view<U> const& v, tensor_item const& i, index_t first_slot, int inputs,
                                     index_t position)
      : data(v.at(i.batch, i.channel, first_slot)),
        stride(v.stride[2]),
        history(inputs),
        oldest(int((position % inputs + inputs) % inputs)) {}

  TCNCA_HOST_DEVICE U* at(int index) const {
    int const slot = oldest + index;
    return data + (slot >= history ? slot - history : slot) * stride;
  }
};

/// The state of a stage's layers.
template <class Block, int G>
struct tensor_state {
  using T = typename Block::element_type;
  using A = accumulate_t<T>;
  using address_type = typename Block::address_type;
  static constexpr tensor_stage g = Block::plan.stage[G];
  static constexpr int tile = Block::tile;

  /// Dilation times (taps - 1) of layer L of the stage.
  template <int L>
  static constexpr int history = int(Block::shape.history(Block::layer_numbers.first + g.first + L));
  template <int L>
  static constexpr index_t first_slot = Block::shape.history_before(Block::layer_numbers.first + g.first + L);
  static constexpr int longest_history = [] {
    index_t n = 0;
    for (int l = 0; l < g.layers; l++) n = max_of(n, Block::shape.history(Block::layer_numbers.first + g.first + l));
    return int(n);
  }();

  /// The initial state's inputs of layer L.
  template <int L>
  struct initial_inputs {
    tensor_state_row<A const> row;

    TCNCA_HOST_DEVICE initial_inputs(Block const& b, tensor_item const& i)
        : row(b.params.state_in, i, first_slot<L>, history<L>, b.params.position) {}
    /// At a position before the first one, -1 the newest; zero before the history.
    TCNCA_HOST_DEVICE float at(int position) const {
      return position >= -history<L> ? *row.at(position + history<L>) : 0.f;
    }
    /// Rounded to T.
    TCNCA_HOST_DEVICE uint32 pair(int position, int next) const { return element_pair<T>(at(position), at(next)); }
  };

  /// Position, from the item's first, of the first element of register r of pair `pair` of this warp's fragments.
  TCNCA_HOST_DEVICE static int fragment_position(Block const& b, int pair, int r) {
    int const line = b.lane / 4, row = b.lane % 4 * 2, first = b.template warp_position<G>();
    if constexpr (g.kind == tensor_stage_kind::lines) {
      return first + (line + r % 2 * 8) * (8 * g.blocks) + (2 * pair + r / 2) * 8 + row;
    } else if constexpr (g.kind == tensor_stage_kind::walk) {
      return first + line + r % 2 * 8 + ((2 * pair + r / 2) * 8 + row) * g.row;
    } else {
      constexpr int group_pairs = g.groups / 2;
      return first + (pair % group_pairs * 2 + r / 2) * 16 + line + r % 2 * 8 + (pair / group_pairs * 8 + row) * g.row;
    }
  }

  /// Address of a lane's fragment of layer L (from 1) before the sequence: of blocks 2 pair and 2 pair + 1 of the walk.
  TCNCA_HOST_DEVICE static address_type initial_fragment(Block const& b, int layer, int pair) {
    int const lanes_before = g.kind == tensor_stage_kind::walk ? b.template warp_position<G>() / 16 * 32 : 0;
    return b.memory + address_type(g.initial + (((layer - 1) * (g.warm() / 2) + pair) * g.initial_lanes() +
                                                lanes_before + b.lane % g.initial_lanes()) *
                                                   16);
  }
  /// Writes what a walk reads before the item's first position: the tile before in the ring, and the fragments of the
  /// other layers. `ring_tile` is that tile. Called by the warps whose walk begins there; a warp reads only what it
  /// has written itself.
  TCNCA_HOST_DEVICE static void store_initial_inputs(Block const& b, address_type ring_tile, tensor_item const& i) {
    using R = typename Block::template ring<G>;
    constexpr bool lines = g.kind == tensor_stage_kind::lines;
    constexpr int width = lines ? 8 * g.warm() : 16, rows = lines ? 1 : 8 * g.warm();
    int const first = tile - 8 * g.warm() * g.row + (lines ? 0 : b.template warp_position<G>());
    if ((i.flags & tensor_item::reads_state) == 0) {
      rolled_loop(b.lane, width * rows / 8, 32, [&](int e) TCNCA_INLINE {
        b.warp.store_shared(ring_tile + R::offset(uint32(first + e / (width / 8) * g.row + e % (width / 8) * 8)),
                            {0u, 0u, 0u, 0u});
      });
      rolled_loop(0, (g.layers - 1) * (g.warm() / 2), 1, [&](int n) TCNCA_INLINE {
        if (b.lane < g.initial_lanes()) b.warp.store_shared(initial_fragment(b, 1, n), {0u, 0u, 0u, 0u});
      });
    } else {
      initial_inputs<0> const first_inputs(b, i);
      rolled_loop(b.lane, width * rows, 32, [&](int e) TCNCA_INLINE {
        int const position = first + e / width * g.row + e % width;
        b.warp.store_shared_16(ring_tile + R::offset(uint32(position)),
                               from_accumulate<T>(first_inputs.at(position - tile)).bits);
      });
      unroll<1, g.layers>([&](auto layer) TCNCA_INLINE {
        constexpr int l = layer;
        initial_inputs<l> const inputs(b, i);
        rolled_loop(0, g.warm() * 2, 1, [&](int n) TCNCA_INLINE {
          int const pair = n / 4, r = n % 4;
          int const line = b.lane / 4 + r % 2 * 8, row = (2 * pair + r / 2 - g.warm()) * 8 + b.lane % 4 * 2;
          int const position = lines ? row : b.template warp_position<G>() + line + row * g.row;
          if (b.lane < g.initial_lanes())
            b.warp.store_shared(initial_fragment(b, l, pair) + address_type(4 * r),
                                {lines && line != 0 ? 0u : inputs.pair(position, position + g.row)});
        });
      });
    }
    b.warp.sync();
  }

  /// The first tile of an item whose inputs go into the final state.
  TCNCA_HOST_DEVICE static int first_final_tile(tensor_item const& i) {
    return (i.flags & tensor_item::writes_state) != 0 ? max_of(0, i.end - i.first - longest_history) / tile : 1 << 30;
  }
  template <int L>
  TCNCA_HOST_DEVICE static tensor_state_row<A> final_row(Block const& b, tensor_item const& i) {
    return {b.params.state_out, i, first_slot<L>, history<L>, b.params.position + i.end};
  }
  /// Inputs before the sequence that are still in the final state: from the initial state, or zeros. They stay where
  /// they are if the states are the same memory. Called by all warps of the stage.
  TCNCA_HOST_DEVICE static void copy_initial_inputs(Block const& b, tensor_item const& i) {
    if ((i.flags & tensor_item::writes_state) == 0 || i.first > 0) return;
    if (b.params.state_in.data == b.params.state_out.data) return;
    unroll<0, g.layers>([&](auto layer) TCNCA_INLINE {
      constexpr int l = layer;
      if (i.end < history<l>) {
        bool const present = b.params.state_in.present();
        initial_inputs<l> const inputs(b, i);
        tensor_state_row<A> const to = final_row<l>(b, i);
        rolled_loop((b.warp_index - g.first_warp) * 32 + b.lane, history<l> - i.end, 32 * g.warps,
                    [&](int n) TCNCA_INLINE { *to.at(n) = present ? inputs.at(n + i.end - history<l>) : 0.f; });
      }
    });
  }
  /// Writes the inputs of the stage's first layer in this warp's part of a tile to the final state. `position`: of the
  /// tile, from the item's first. address(position) is where a position of the tile is in the ring.
  template <class Address>
  TCNCA_HOST_DEVICE static void store_ring_inputs(Block const& b, tensor_item const& i, int position, Address address) {
    constexpr bool lines = g.kind == tensor_stage_kind::lines;
    constexpr int width = lines ? 128 * g.blocks : g.kind == tensor_stage_kind::walk ? 16 : 16 * g.groups;
    constexpr int rows = lines ? 1 : 8 * g.blocks;
    tensor_state_row<A> const to = final_row<0>(b, i);
    int const end = i.end - i.first, first = b.template warp_position<G>();
    rolled_loop(b.lane, width * rows, 32, [&](int e) TCNCA_INLINE {
      int const at = first + e / width * g.row + e % width, index = position + at - (end - history<0>);
      if (index >= 0 && index < history<0>) *to.at(index) = to_accumulate(T{b.warp.load_shared_16(address(at))});
    });
  }
  /// Address of a lane's fragment of layer L (from 1) that goes into the final state.
  TCNCA_HOST_DEVICE static address_type final_fragment(Block const& b, int layer, int pair) {
    return b.memory +
           address_type(g.final_inputs +
                        (((b.warp_index - g.first_warp) * (g.layers - 1) + layer - 1) * g.pairs() + pair) * 512 +
                        b.lane * 16);
  }
  /// Writes the inputs of the other layers, whose fragments this warp has stored, to the final state.
  TCNCA_HOST_DEVICE static void store_fragment_inputs(Block const& b, tensor_item const& i, int position) {
    int const end = i.end - i.first;
    unroll<1, g.layers>([&](auto layer) TCNCA_INLINE {
      constexpr int l = layer;
      tensor_state_row<A> const to = final_row<l>(b, i);
      rolled_loop(0, g.pairs() * 4, 1, [&](int n) TCNCA_INLINE {
        uint32 v[1];
        b.warp.load_shared(v, final_fragment(b, l, n / 4) + address_type(n % 4 * 4));
        int const index = position + fragment_position(b, n / 4, n % 4) - (end - history<l>);
        if (index >= 0 && index < history<l>) *to.at(index) = element_of_pair<T>(v[0], 0);
        if (index + g.row >= 0 && index + g.row < history<l>) *to.at(index + g.row) = element_of_pair<T>(v[0], 1);
      });
    });
  }
};

}  // namespace tcnca::detail
