// The weights of the tensor-core forward kernel: fetched once for an item, then as banded matrices in registers.
#pragma once
#include "block.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Registers of a stage's banded matrices T[8 (history + 1) x 8], T[j][i] = weight[(8 history + i - j) / step] where
/// that is a whole number of a tap, else 0. Register b of a layer is block b (8 rows of T): rows 2 t and 2 t + 1,
/// column g of lane 4 g + t.
template <class Block, int G>
struct tensor_weights {
  static constexpr tensor_stage g = Block::plan.stage[G];
  uint32 even[size_t(g.products())];
  uint32 odd[size_t(
      g.products())];  // the same for pairs that begin with an odd block. History in registers: the first two
                       // blocks in the other order
  float biases[Block::shape.bias ? g.layers : 1][4];

  /// The bias of layer L, four times: the first summand of a product.
  template <int L>
  TCNCA_HOST_DEVICE auto const& bias() const {
    if constexpr (Block::shape.bias) {
      return biases[L];
    } else {
      return biases[0];
    }
  }

  /// Reads an item's entry of the table. Called by all threads of a warp.
  TCNCA_HOST_DEVICE void load(Block const& b, typename Block::address_type entry) {
    using T = typename Block::element_type;
    using address_type = typename Block::address_type;
    int const n = b.lane, lane = b.lane;
    if constexpr (!Block::shape.bias) {
      TCNCA_UNROLL
      for (int j = 0; j < 4; j++) biases[0][j] = 0;
    }
    unroll<0, g.layers>([&](auto layer) TCNCA_INLINE {
      constexpr int i = layer, history = g.history[i], step = g.step[i], at = g.products_before(i);
      constexpr int taps = Block::shape.taps, first = (g.first + i) * (taps + 1);
      address_type const values = entry + address_type(32 + 2 * first);
      if constexpr (Block::shape.bias) {
        uint32 const bias = bits_of_float(to_accumulate(T{b.warp.load_shared_16(values + 2 * taps)}));
        unroll<0, 4>([&](auto j) TCNCA_INLINE { biases[i][j] = float_of_bits(distinct_copy(bias, n, j + 1)); });
      }
      unroll<0, history + 1>([&](auto block) TCNCA_INLINE {
        uint32 pair = 0;
        TCNCA_UNROLL
        for (int e = 0; e < 2; e++) {
          int const lag = 8 * (history - block) + lane / 4 - (lane % 4 * 2 + e), tap = lag / step;
          if (lag >= 0 && lag % step == 0 && tap < taps)
            pair |= uint32(b.warp.load_shared_16(values + address_type(2 * tap))) << 16 * e;
        }
        even[at + block] = pair;
      });
      unroll<0, history + 1>([&](auto block) TCNCA_INLINE {
        constexpr int j = block, other = !g.walks() && history > 0 && j < 2 ? 1 - j : j;
        odd[at + j] = distinct_copy(even[at + other], n, 8 + j);
      });
    });
  }
};

/// The numbers of items first, first + stride, ... as (batch, outer, inner), without a division for each.
struct tensor_item_counter {
  int inner, outer, batch, inner_apart, outer_apart, batches_apart;

  TCNCA_HOST_DEVICE tensor_item_counter(index_t first, index_t stride, int inner_count, int outer_count)
      : inner(int(first % inner_count)),
        outer(int(first / inner_count % outer_count)),
        batch(int(first / inner_count / outer_count)),
        inner_apart(int(stride % inner_count)),
        outer_apart(int(stride / inner_count % outer_count)),
        batches_apart(int(stride / inner_count / outer_count)) {}

  TCNCA_HOST_DEVICE void advance(int inner_count, int outer_count) {
    inner += inner_apart;
    int const carry = inner >= inner_count ? 1 : 0;
    inner -= carry * inner_count, outer += outer_apart + carry;
    bool const wraps = outer >= outer_count;
    outer -= wraps ? outer_count : 0, batch += batches_apart + (wraps ? 1 : 0);
  }
};

/// Fetches the items of a block and their weights for the table. Called by the threads of the first stage.
template <class Block>
struct tensor_item_loader {
  static constexpr tensor_plan plan = Block::plan;
  static constexpr int loaders = 32 * plan.stage[0].warps, rounds = divide_up(plan.values, loaders);
  static constexpr conv_stack_shape shape = Block::shape;
  static constexpr layer_range layers = Block::layer_numbers;

  uint16 value[size_t(rounds)];

  /// Begins to load the weights of an item's channel.
  TCNCA_HOST_DEVICE void fetch(Block const& b, int channel) {
    unroll<0, rounds>([&](auto r) TCNCA_INLINE {
      int const i = b.group.rank() + r * loaders, layer = i / (shape.taps + 1), tap = i % (shape.taps + 1);
      value[r] = 0;
      if (i < plan.values) {
        using T = typename Block::element_type;
        if (tap < shape.taps) value[r] = element_bits<T>(*b.params.weight.at(layers.first + layer, tap, channel));
        else if (shape.bias) value[r] = element_bits<T>(*b.params.bias.at(layers.first + layer, channel));
      }
    });
  }
  /// Writes the weights to an entry of the table.
  TCNCA_HOST_DEVICE void store(Block const& b, typename Block::address_type entry) const {
    unroll<0, rounds>([&](auto r) TCNCA_INLINE {
      int const i = b.group.rank() + r * loaders;
      if (i < plan.values) b.warp.store_shared_16(entry + typename Block::address_type(32 + 2 * i), value[r]);
    });
  }
};

}  // namespace tcnca::detail
