// The stages of the tensor-core forward kernel whose warps keep the history of their groups in registers: owned and
// burst.
#pragma once
#include "state.hpp"
#include "transfer.hpp"
#include "weights.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// For each layer and group of a warp the blocks before the current one. Of two blocks the older one is the first where
/// Parity is 0, so that no block ever moves: the new block replaces the older one.
template <class Block, int G>
struct tensor_history {
  using T = typename Block::element_type;
  using address_type = typename Block::address_type;
  using state = tensor_state<Block, G>;
  static constexpr tensor_stage g = Block::plan.stage[G];
  static constexpr int registers = g.history_registers();

  uint32 block[size_t(g.layers)][size_t(g.groups)][size_t(registers)];

  TCNCA_HOST_DEVICE void clear() {
    unroll<0, g.layers>([&](auto l) TCNCA_INLINE {
      unroll<0, g.groups>([&](auto q)
                              TCNCA_INLINE { unroll<0, registers>([&](auto r) TCNCA_INLINE { block[l][q][r] = 0; }); });
    });
  }
  /// Loads the history before an item that begins with Parity: from the initial state, or zeros.
  template <int Parity>
  TCNCA_HOST_DEVICE void load(Block const& b, tensor_item const& i) {
    clear();
    if ((i.flags & tensor_item::reads_state) == 0) return;
    unroll<0, g.layers>([&](auto layer) TCNCA_INLINE {
      constexpr int l = layer, blocks = g.history[l];
      typename state::template initial_inputs<l> const inputs(b, i);
      int const position = b.template warp_position<G>() + b.template lane_position<G>(false);
      // The registers of a group must have constant numbers. So all groups move up, and the last one is loaded.
      rolled_loop(0, g.groups, 1, [&](int q) TCNCA_INLINE {
        unroll<0, g.groups - 1>([&](auto to) TCNCA_INLINE {
          unroll<0, registers>([&](auto r) TCNCA_INLINE { block[l][to][r] = block[l][to + 1][r]; });
        });
        unroll<0, 2 * blocks>([&](auto n) TCNCA_INLINE {
          constexpr int age = blocks - n / 2, r = (blocks == 2 ? (n / 2 ^ Parity) * 2 : 0) + n % 2;
          int const first = position + q * 16 + n % 2 * 8 - age * 8 * g.row;
          block[l][g.groups - 1][r] = inputs.pair(first, first + g.row);
        });
      });
    });
    b.warp.sync();  // the final state may replace the initial one
  }

  /// One block of all groups. address(i, column) is the place of the lane's row of groups 2 i and 2 i + 1, `column`
  /// positions on; store(i, v) takes the pair's outputs. `present` masks the rows of a lane that exist. Fragments of
  /// the layers' inputs are stored for the final state if is_final; first_pair is the number of the first.
  template <int Parity, class Address, class Store>
  TCNCA_HOST_DEVICE void step(Block const& b, tensor_weights<Block, G> const& weights, uint32 present, bool is_final,
                              int first_pair, Address address, Store store) {
    constexpr int chunk = g.groups % 4 == 0 ? 4 : 2;
    unroll<0, g.groups / chunk>([&](auto part) TCNCA_INLINE {
      constexpr int first = part * chunk;
      float c[size_t(chunk)][4];
      unroll<0, chunk>([&](auto i) TCNCA_INLINE { multiply_history<0, Parity>(b, c[i], first + i, weights); });
      unroll<0, chunk / 2>([&](auto i) TCNCA_INLINE {
        uint32* const x = newest<0, Parity>(first + 2 * i);
        uint32* const y = newest<0, Parity>(first + 2 * i + 1);
        address_type const at = address(constant<first / 2 + i>{}, constant<0>{});
        if constexpr (g.history[0] == 2) {
          b.warp.load_two_matrices_transposed(x[0], x[1], at);
          b.warp.load_two_matrices_transposed(y[0], y[1], address(constant<first / 2 + i>{}, constant<16>{}));
        } else {
          uint32 v[4];
          b.warp.load_matrices_transposed(v, at);
          x[0] = v[0], x[1] = v[1], y[0] = v[2], y[1] = v[3];
        }
        x[0] &= present, x[1] &= present, y[0] &= present, y[1] &= present;
      });
      unroll<0, chunk / 2>([&](auto i) TCNCA_INLINE {
        uint32 v[4];
        unroll<0, 2>([&](auto h) TCNCA_INLINE {
          constexpr int q = first + 2 * i + h;
          float(&d)[4] = c[2 * i + h];
          multiply_newest<0, Parity>(b, d, q, weights);
          unroll<1, g.layers>([&](auto layer) TCNCA_INLINE {
            constexpr int l = layer;
            uint32* const before = newest<l - 1, Parity>(q);
            uint32 const y0 = Block::outputs(d[0], d[1], before[0]), y1 = Block::outputs(d[2], d[3], before[1]);
            multiply_history<l, Parity>(b, d, q, weights);
            uint32* const x = newest<l, Parity>(q);
            x[0] = y0, x[1] = y1;
            if (is_final)
              b.warp.store_shared(state::final_fragment(b, l, first_pair + first / 2 + i) + address_type(8 * h),
                                  {x[0], x[1]});
            multiply_newest<l, Parity>(b, d, q, weights);
          });
          uint32* const before = newest<g.layers - 1, Parity>(q);
          v[2 * h] = Block::outputs(d[0], d[1], before[0]), v[2 * h + 1] = Block::outputs(d[2], d[3], before[1]);
        });
        store(constant<first / 2 + i>{}, v);
      });
    });
  }

 private:
  /// The registers of group q that the newest block of layer L takes.
  template <int L, int Parity>
  TCNCA_HOST_DEVICE uint32* newest(int q) {
    return block[L][q] + (g.history[L] == 2 ? 2 * Parity : 0);
  }
  /// c = bias + the product of a group's history.
  template <int L, int Parity>
  TCNCA_HOST_DEVICE void multiply_history(Block const& b, float (&c)[4], int q,
                                          tensor_weights<Block, G> const& weights) {
    constexpr int at = Block::plan.stage[G].products_before(L);
    uint32 const* const h = block[L][q];
    if constexpr (g.history[L] == 2) {
      uint32 const* const m = (Parity == 0 ? weights.even : weights.odd) + at;
      b.warp.template multiply<T>(c, weights.template bias<L>(), h[0], h[1], h[2], h[3], m[0], m[1]);
    } else {
      b.warp.template multiply<T>(c, weights.template bias<L>(), h[0], h[1], weights.even[at]);
    }
  }
  /// c += the product of a group's newest block.
  template <int L, int Parity>
  TCNCA_HOST_DEVICE void multiply_newest(Block const& b, float (&c)[4], int q,
                                         tensor_weights<Block, G> const& weights) {
    constexpr int at = Block::plan.stage[G].products_before(L) + g.history[L];
    uint32 const* const x = newest<L, Parity>(q);
    b.warp.template multiply<T>(c, c, x[0], x[1], weights.even[at]);
  }
};

/// A warp of stage G of kind owned. Called by all its threads.
template <class Block, int G>
struct tensor_owned {
  using T = typename Block::element_type;
  using address_type = typename Block::address_type;
  using state = tensor_state<Block, G>;
  static constexpr tensor_stage g = Block::plan.stage[G];
  static constexpr bool is_last = G == Block::last;  // then the outputs replace the inputs
  static constexpr int tile = Block::tile;
  static constexpr int output = is_last ? G : G + 1;
  static constexpr bool stores_matrices = decltype(Block::warp)::stores_matrices;
  using input_ring = typename Block::template ring<G>;
  using output_ring = typename Block::template ring<output>;

  Block const& b;
  tensor_weights<Block, G> weights;
  tensor_history<Block, G> history;
  uint32 in, out;
  address_type from, to;
  int first_final_tile = 0;
  typename tensor_select<(is_last ? 0 : 1), tensor_output<Block>, tensor_no_output>::type y;

  TCNCA_HOST_DEVICE explicit tensor_owned(Block const& block)
      : b(block),
        from(b.memory + address_type(input_ring::begin)),
        to(b.memory + address_type(output_ring::begin)),
        y(b) {
    int const first = b.template warp_position<G>();
    in = input_ring::offset(uint32(first + b.template lane_position<G>(true)));
    out = output_ring::offset(uint32(first + b.template lane_position<G>(stores_matrices)));
  }
  /// Begins an item whose first tile has this Parity.
  template <int Parity>
  TCNCA_HOST_DEVICE void begin(address_type entry) {
    tensor_item const item = b.item(entry);
    history.template load<Parity * g.blocks % 2>(b, item);
    state::copy_initial_inputs(b, item);
    first_final_tile = state::first_final_tile(item);
    if constexpr (is_last) { y.begin(b, item); }
    weights.load(b, entry);
  }
  /// Processes tile t of the item.
  template <int Parity>
  TCNCA_HOST_DEVICE void step(address_type entry, int t) {
    bool const is_final = t >= first_final_tile;
    uint32 const exchange = is_last ? 0 : Block::template tile_exchange<output>(t);
    if (is_final) {
      state::store_ring_inputs(b, b.item(entry), t * tile,
                               [&](int position) TCNCA_INLINE { return from + input_ring::offset(uint32(position)); });
      b.warp.sync();
    }
    unroll<0, g.blocks>([&](auto block) TCNCA_INLINE {
      constexpr int rows = block * 8 * g.row;
      history.template step<(Parity * g.blocks + block) % 2>(
          b, weights, ~0u, is_final, block * (g.groups / 2),
          [&](auto i, auto column)
              TCNCA_INLINE { return input_ring::moved(from + in, uint32(rows + i * 32 + column)); },
          [&](auto i, uint32 const(&v)[4]) TCNCA_INLINE {
            if constexpr (is_last && !stores_matrices) { b.warp.sync(); }  // all lanes have read what is replaced
            address_type const at = output_ring::moved(to + out, uint32(rows + i * 32)) ^ exchange;
            b.template store_fragments<G, output_ring>(at, output_ring::moved(at, uint32(g.row)), v);
          });
    });
    if (is_final) state::store_fragment_inputs(b, b.item(entry), t * tile);
    if constexpr (is_last) {
      y.template store<8 * g.blocks, 2 * g.groups, g.row>(
          b, b.template warp_position<G>(), 1, [&](int position, auto more) TCNCA_INLINE {
            return output_ring::moved(to + output_ring::offset(uint32(position)), uint32(more));
          });
    }
    from = b.template next_tile<G>(from);
    to = is_last ? from : b.template next_tile<output>(to);
  }
};

/// All warps, for the last stage of kind burst. A period is 8 rows, which are several tiles.
template <class Block>
struct tensor_burst {
  using T = typename Block::element_type;
  using address_type = typename Block::address_type;
  static constexpr int G = Block::last, tile = Block::tile;
  using state = tensor_state<Block, G>;
  static constexpr tensor_stage g = Block::plan.stage[G];
  static constexpr int tiles_per_period = 8 * g.row / tile;
  static constexpr bool stores_matrices = decltype(Block::warp)::stores_matrices;
  using ring = typename Block::template ring<G>;

  Block const& b;
  tensor_weights<Block, G> weights;
  tensor_history<Block, G> history;
  uint32 start = 0;  // of the period, from the ring's first byte
  int first_final_tile = 0;
  tensor_output<Block> y;

  TCNCA_HOST_DEVICE explicit tensor_burst(Block const& block) : b(block), y(b) {}

  TCNCA_HOST_DEVICE void begin(address_type entry) {
    tensor_item const item = b.item(entry);
    history.template load<0>(b, item);
    state::copy_initial_inputs(b, item);
    first_final_tile = state::first_final_tile(item);
    y.begin(b, item);
    weights.load(b, entry);
  }
  /// Tile t of the item's inputs is in the ring. The last period may be short.
  TCNCA_HOST_DEVICE void step(address_type entry, int t, int tiles) {
    int const present = t % tiles_per_period + 1;
    bool const odd = t / tiles_per_period % 2 != 0;
    if (present == tiles_per_period) {
      if (odd) period<1>(entry, t, 8);
      else period<0>(entry, t, 8);
    } else if (t + 1 == tiles) {
      if (odd) period<1>(entry, t, present * (tile / g.row));
      else period<0>(entry, t, present * (tile / g.row));
      history.clear();  // ends the live range of the registers
    }
  }

 private:
  /// The place of a position of the period, `tiles` tiles further.
  TCNCA_HOST_DEVICE address_type address(int position, int tiles = 0) const {
    uint32 const at = ring::offset(uint32(position)) + start + uint32(tiles * ring::tile_bytes);
    return b.memory + address_type(uint32(ring::begin) + (at >= uint32(ring::bytes) ? at - uint32(ring::bytes) : at));
  }
  /// Processes a period that ends with tile t and has `rows` rows.
  template <int Parity>
  TCNCA_HOST_DEVICE void period(address_type entry, int t, int rows) {
    int const first = b.template warp_position<G>(), lane = b.lane;
    int const position = t / tiles_per_period * (8 * g.row);
    bool const is_final = t >= first_final_tile;
    if (is_final) {
      state::store_ring_inputs(b, b.item(entry), position, [&](int at) TCNCA_INLINE { return address(at); });
      b.warp.sync();
    }
    // A row that does not exist: its inputs are zeros, from the address of one that does; its outputs go one tile
    // further, because the next item's first tile may be arriving in the row's own place.
    auto const away = [&](int row) TCNCA_INLINE { return row < rows ? 0 : 1; };
    address_type const from =
        address(first + b.template lane_position<G>(true) - (lane % 8 < rows ? 0 : lane % 8 * g.row));
    address_type const to =
        address(first + b.template lane_position<G>(stores_matrices), away(stores_matrices ? lane % 8 : lane % 4 * 2));
    address_type const next =
        stores_matrices ? 0 : address(first + b.template lane_position<G>(false) + g.row, away(lane % 4 * 2 + 1));
    uint32 const present = (lane % 4 * 2 < rows ? 0xffffu : 0) | (lane % 4 * 2 + 1 < rows ? 0xffff0000u : 0);
    history.template step<Parity>(
        b, weights, present, is_final, 0,
        [&](auto i, auto column) TCNCA_INLINE { return ring::moved(from, uint32(i * 32 + column)); },
        [&](auto i, uint32 const(&v)[4]) TCNCA_INLINE {
          if constexpr (!stores_matrices) { b.warp.sync(); }
          b.template store_fragments<G, ring>(ring::moved(to, uint32(i * 32)), ring::moved(next, uint32(i * 32)), v);
        });
    if (is_final) state::store_fragment_inputs(b, b.item(entry), position);
    y.template store_period<8, 2 * g.groups, g.row>(b, first, rows * g.row / tile,
                                                    [&](int at, auto more) TCNCA_INLINE { return address(at + more); });
    start += uint32(rows * g.row / tile) * uint32(ring::tile_bytes);
    start = start >= uint32(ring::bytes) ? start - uint32(ring::bytes) : start;
  }
};

}  // namespace tcnca::detail
