// The stages of the tensor-core forward kernel whose warps walk: lines and walk.
#pragma once
#include "state.hpp"
#include "transfer.hpp"
#include "weights.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// A warp of stage G. Called by all its threads.
template <class Block, int G>
struct tensor_walk {
  using T = typename Block::element_type;
  using address_type = typename Block::address_type;
  using input_ring = typename Block::template ring<G>;
  using output_ring = typename Block::template ring<G + 1>;
  using state = tensor_state<Block, G>;
  static constexpr tensor_stage g = Block::plan.stage[G];
  static constexpr bool lines = g.kind == tensor_stage_kind::lines, is_last = G == Block::last;
  static constexpr int warm = g.warm(), pairs = (warm + g.blocks) / 2, tile = Block::tile;
  static constexpr int input_offsets = lines ? pairs : warm / 2 + 1, output_offsets = lines ? g.blocks / 2 : 1;

  Block const& b;
  tensor_weights<Block, G> weights;
  int in[size_t(input_offsets)];  // from the tile's begin. Blocks before the tile: of the first warps negative
  uint32 out[size_t(output_offsets)];
  address_type from, to;  // the current tiles
  int first_final_tile = 0;
  typename tensor_select<(is_last ? 0 : 1), tensor_output<Block>, tensor_no_output>::type y;

  TCNCA_HOST_DEVICE explicit tensor_walk(Block const& block)
      : b(block),
        from(b.memory + address_type(input_ring::begin)),
        to(b.memory + address_type(output_ring::begin)),
        y(b) {
    int const first = b.template warp_position<G>();
    unroll<0, input_offsets>([&](auto i) TCNCA_INLINE {
      int const position = first + b.template lane_position<G>(true) + (i - warm / 2) * (16 * g.row);
      in[i] = position < 0 ? int(input_ring::offset(uint32(tile + position))) - input_ring::tile_bytes
                           : int(input_ring::offset(uint32(position)));
    });
    unroll<0, output_offsets>([&](auto i) TCNCA_INLINE {
      out[i] =
          output_ring::offset(uint32(first + b.template lane_position<G>(warp_of_block::stores_matrices) + i * 16));
    });
  }

  /// Whether the walk's first blocks are before the tile.
  TCNCA_HOST_DEVICE bool begins_before() const {
    return lines ? b.warp_index == g.first_warp : b.template warp_position<G>() < 8 * g.blocks * g.row;
  }

  /// Begins an item.
  template <int>
  TCNCA_HOST_DEVICE void begin(address_type entry) {
    tensor_item const item = b.item(entry);
    if (begins_before()) {
      address_type const begin = b.memory + address_type(input_ring::begin);
      state::store_initial_inputs(
          b, (from == begin ? begin + address_type(input_ring::bytes) : from) - address_type(input_ring::tile_bytes),
          item);
    }
    state::copy_initial_inputs(b, item);
    first_final_tile = state::first_final_tile(item);
    if constexpr (is_last) { y.begin(b, item); }
    weights.load(b, entry);
  }

  /// Processes tile t of the item.
  template <int>
  TCNCA_HOST_DEVICE void step(address_type entry, int t) {
    bool const at_begin = begins_before(), before = t == 0 && at_begin, is_final = t >= first_final_tile;
    address_type const wrap =
        from == b.memory + address_type(input_ring::begin) && at_begin ? address_type(input_ring::bytes) : 0;
    uint32 const exchange = is_last ? 0 : Block::template tile_exchange < is_last ? 0 : G + 1 > (t);
    if (is_final)
      state::store_ring_inputs(b, b.item(entry), t * tile,
                               [&](int position) TCNCA_INLINE { return from + input_ring::offset(uint32(position)); });
    uint32 x[size_t(g.layers + 1)][size_t(pairs)][4];
    auto const load = [&](auto number) TCNCA_INLINE {
      constexpr int i = number;
      if constexpr (i < warm / 2) {
        b.template load_fragments<G>(x[0][i], from + address_type(in[i]) + (in[i] < 0 ? wrap : 0));
      } else if constexpr (lines) {
        b.template load_fragments<G>(x[0][i], from + address_type(in[i]));
      } else {
        b.template load_fragments<G>(
            x[0][i], input_ring::moved(from + address_type(in[warm / 2]), uint32((i - warm / 2) * 16 * g.row)));
      }
    };
    load(constant<0>{});
    unroll<0, pairs>([&](auto pair) TCNCA_INLINE {
      constexpr int i = pair;
      if constexpr (i + 1 < pairs) { load(constant<i + 1>{}); }
      unroll<0, g.layers>([&](auto layer) TCNCA_INLINE {
        constexpr int l = layer, first_block = warm - g.warm_after(l), history = g.history[l];
        unroll<0, 2>([&](auto half) TCNCA_INLINE {
          constexpr int h = half, block = 2 * i + h;
          if constexpr (block >= first_block) {
            float c[4];
            auto const& matrices = (block - history) % 2 != 0 ? weights.odd : weights.even;
            products<history + 1, block - history>(c, weights.template bias<l>(), x[l],
                                                   matrices + Block::plan.stage[G].products_before(l));
            x[l + 1][i][2 * h] = Block::outputs(c[0], c[1], x[l][i][2 * h]);
            x[l + 1][i][2 * h + 1] = Block::outputs(c[2], c[3], x[l][i][2 * h + 1]);
          }
        });
        if constexpr (2 * i + 1 >= first_block && 2 * i < warm && l + 1 < g.layers) {
          // Inputs before the sequence are those of the state or zero, not the outputs that zeros would give.
          if (before && (!lines || b.lane < 4)) {
            uint32 v[4];
            b.warp.load_shared(v, state::initial_fragment(b, l + 1, i));
            x[l + 1][i][0] = v[0], x[l + 1][i][2] = v[2];
            if constexpr (!lines) { x[l + 1][i][1] = v[1], x[l + 1][i][3] = v[3]; }
          }
        }
      });
      if constexpr (2 * i >= warm) {
        constexpr int own = i - warm / 2;
        unroll<1, g.layers>([&](auto layer) TCNCA_INLINE {
          if (is_final) b.warp.store_shared(state::final_fragment(b, layer, own), x[layer][i]);
        });
        address_type at;
        if constexpr (lines) {
          at = to + out[own];
        } else {
          at = output_ring::moved(to + out[0], own * 16 * g.row);
        }
        at ^= exchange;
        b.template store_fragments<G, output_ring>(at, output_ring::moved(at, g.row), x[g.layers][i]);
      }
    });
    if (is_final) state::store_fragment_inputs(b, b.item(entry), t * tile);
    if constexpr (is_last) {
      y.template store<lines ? 1 : 8 * g.blocks, lines ? 16 * g.blocks : 2, g.row>(
          b, b.template warp_position<G>(), 1, [&](int position, auto more) TCNCA_INLINE {
            return output_ring::moved(to + output_ring::offset(uint32(position)), uint32(more));
          });
    }
    from = b.template next_tile<G>(from);
    to = b.template next_tile<G + 1>(to);
  }

 private:
  using warp_of_block = decltype(Block::warp);

  /// d = c + the product of N blocks from number First; block n is half n % 2 of quads[n / 2].
  template <int N, int First>
  TCNCA_HOST_DEVICE void products(float (&d)[4], float const (&c)[4], uint32 const (*quads)[4],
                                  uint32 const* matrices) const {
    uint32 const* const q = quads[First / 2];
    if constexpr (First % 2 == 0 && N > 1) {
      b.warp.template multiply<T>(d, c, q[0], q[1], q[2], q[3], matrices[0], matrices[1]);
      if constexpr (N > 2) { products<N - 2, First + 2>(d, d, quads, matrices + 2); }
    } else {
      b.warp.template multiply<T>(d, c, q[First % 2 * 2], q[First % 2 * 2 + 1], matrices[0]);
      if constexpr (N > 1) { products<N - 1, First + 1>(d, d, quads, matrices + 1); }
    }
  }
};

}  // namespace tcnca::detail
