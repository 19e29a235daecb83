// How x enters the shared memory of the tensor-core forward kernel and how y leaves it, for both layouts.
//
// Channels-last: a cluster of eight blocks processes eight neighbouring channels, one a block (channel_exchange.hpp).
// In step n the blocks deliver tile n + 1 of x to each other, fetch tile n + 3, and store the tile of y that the last
// stage has computed and sent in step n - 2. They arrive at the cluster's barrier after that, before the stages
// compute, and wait for it in the next step.
#pragma once
#include "../../block/channel_exchange.hpp"
#include "block.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// x of rows along the length. Used by the threads of the first stage.
template <class Block>
struct tensor_row_input {
  using address_type = typename Block::address_type;
  typename Block::element_type const* x = nullptr;  // the next tile
  address_type to;

  TCNCA_HOST_DEVICE explicit tensor_row_input(Block const& b)
      : to(b.memory + address_type(Block::template ring<0>::begin)) {}
  TCNCA_HOST_DEVICE void begin(Block const& b, tensor_item const& i) { x = Block::row(b.params.x, i) + i.first; }
  /// Begins to load a tile with `left` positions; the caller commits. It is in the ring after the wait.
  TCNCA_HOST_DEVICE void load(Block const& b, int left) {
    b.load_tile(to, x, left);
    x += Block::tile, to = b.template next_tile<0>(to);
  }
  TCNCA_HOST_DEVICE void deliver(Block const&) {}
};

/// x of channels-last sequences.
template <class Block>
struct tensor_channel_input {
  using address_type = typename Block::address_type;
  using R = typename Block::template ring<0>;
  using loader =
      channel_loader<typename Block::group_type, typename Block::element_type, Block::tile, Block::plan.stage[0].warps>;
  loader exchange;
  uint32 loaded = 0, delivered = 0;  // tiles
  address_type to;

  TCNCA_HOST_DEVICE explicit tensor_channel_input(Block const& b)
      : exchange(b.group, b.memory + address_type(Block::plan.x_staging), b.warp_index),
        to(b.memory + address_type(R::begin)) {}
  TCNCA_HOST_DEVICE void begin(Block const& b, tensor_item const& i) {
    exchange.begin(b.params.x, i.batch, i.channel - b.rank(), i.first, b.params.x_vectorizable);
  }
  /// Begins to load a tile to the staging buffer; the caller commits.
  TCNCA_HOST_DEVICE void load(Block const& b, int left) {
    exchange.fetch(b.warp, int(loaded % 2) * loader::bytes, left);
    loaded++;
  }
  /// Stores the oldest tile that is in a staging buffer in the rings of all blocks. Its copies have been waited for.
  TCNCA_HOST_DEVICE void deliver(Block const& b) {
    if (delivered == loaded) return;
    exchange.scatter(int(delivered % 2) * loader::bytes, [&](int position, auto further) TCNCA_INLINE {
      return R::moved(to + address_type(R::offset(uint32(position))), uint32(further));
    });
    to = b.template next_tile<0>(to), delivered++;
  }
};

/// Vectors of a warp's part of a tile of outputs: `Rows` rows, `Step` positions apart, of `Vectors` vectors of 8
/// positions from position `first` on. Vector i of all; with i = lane + 32 r it is r * apart positions after vector
/// `lane`.
template <int Rows, int Vectors, int Step>
struct tensor_output_vectors {
  static constexpr int rounds = Rows * Vectors / 32;
  static constexpr int apart = Vectors <= 32 ? 32 / Vectors * Step : 256;
  static_assert(Rows * Vectors % 32 == 0 && (Vectors <= 32 || Rows == 1));
  TCNCA_HOST_DEVICE static constexpr int position(int first, int i) {
    return first + (Vectors <= 32 ? i / Vectors * Step + i % Vectors * 8 : i * 8);
  }
};

/// y of rows along the length. Used by the warps of the last stage.
template <class Block>
struct tensor_row_output {
  using T = typename Block::element_type;
  T* y = nullptr;          // the current tile
  int skip = 0, left = 0;  // the positions of it that are written

  TCNCA_HOST_DEVICE explicit tensor_row_output(Block const&) {}
  TCNCA_HOST_DEVICE void begin(Block const& b, tensor_item const& i) {
    y = Block::row(b.params.y, i) + i.first, skip = i.begin - i.first, left = i.end - i.first;
  }
  /// Writes this warp's part of `tiles` tiles, which it has stored in shared memory: address(position, constant) is the
  /// place of the sum.
  template <int Rows, int Vectors, int Step, class Address>
  TCNCA_HOST_DEVICE void store(Block const& b, int first, int tiles, Address address) {
    b.template store_tile<Rows, Vectors, Step>(y, first, skip, left, address);
    y += tiles * Block::tile, skip -= tiles * Block::tile, left -= tiles * Block::tile;
  }
  /// The same for a burst, a part of which may not exist.
  template <int Rows, int Vectors, int Step, class Address>
  TCNCA_HOST_DEVICE void store_period(Block const& b, int first, int, Address address) {
    store<Rows, Vectors, Step>(b, first, Rows * Step / Block::tile, address);
  }
  TCNCA_HOST_DEVICE void store_sent(Block const&) {}
};

/// y of channels-last sequences.
template <class Block>
struct tensor_channel_output {
  using T = typename Block::element_type;
  using address_type = typename Block::address_type;
  static constexpr tensor_stage g = Block::plan.stage[Block::last];
  static constexpr int tile = Block::tile, buffers = tensor_plan::y_buffers;
  /// The last warps of the stage store; each has at least four units, so that the overhead of a tile is small.
  static constexpr int warps = min_of(g.warps, max_of(1, tile / channel_units<T>::period / 4));
  using storer = channel_storer<typename Block::group_type, T, tile, warps>;
  storer exchange;
  int sent = 0, stored = 0;  // byte offsets of the next tiles' buffers
  uint32 item = 0;           // that is stored next
  int skip = 0, left = 0;    // positions from the next tile that is stored on: that are not written, that exist

  TCNCA_HOST_DEVICE explicit tensor_channel_output(Block const& b)
      : exchange(b.group, b.memory + address_type(Block::plan.y_staging), store_warp(b)) {}
  TCNCA_HOST_DEVICE void begin(Block const& b, tensor_item const& i) {
    if constexpr (g.kind == tensor_stage_kind::burst) { choose(b, i); }
  }
  /// Sends this warp's part of a tile to the blocks that store it, two steps later.
  template <int Rows, int Vectors, int Step, class Address>
  TCNCA_HOST_DEVICE void store(Block const& b, int first, int, Address address) {
    using vectors = tensor_output_vectors<Rows, Vectors, Step>;
    static_assert(vectors::apart % storer::period == 0);
    b.warp.sync();
    int const position = vectors::position(first, b.lane);
    address_type const to = exchange.address(position) + address_type(sent);
    unroll<0, vectors::rounds>([&](auto r) TCNCA_INLINE {
      constexpr int further = decltype(r)::value * vectors::apart;
      uint32 v[4];
      b.warp.load_shared(v, address(position, constant<further>{}));
      b.cluster.store(to + address_type(further * 2), v);
    });
    sent = next(sent);
  }
  /// Stores the tile that was sent two steps ago, if there is one.
  TCNCA_HOST_DEVICE void store_sent(Block const& b) {
    if (store_warp(b) < 0) return;
    if (left <= 0) choose(b, b.item(b.entry(item))), item++;
    store_tile(b);
    stored = next(stored);
  }
  /// Exchanges and stores the first `tiles` tiles of a period of a burst. Called by all warps of the cluster, after
  /// they have arrived at the cluster's barrier; so it is when this ends. While a tile is stored, the next one is sent.
  template <int Rows, int Vectors, int Step, class Address>
  TCNCA_HOST_DEVICE void store_period(Block const& b, int first, int tiles, Address address) {
    using vectors = tensor_output_vectors<Rows, Vectors, Step>;
    static_assert(vectors::apart % storer::period == 0 && tile % vectors::apart == 0);
    if (skip >= tiles * tile) {
      for (int n = 0; n < tiles; n++) store_tile(b);
      return;
    }
    b.warp.sync();
    int position = vectors::position(first, b.lane);
    address_type const to = exchange.address(position);
    auto const send = [&]() TCNCA_INLINE {
      unroll<0, tile / vectors::apart>([&](auto r) TCNCA_INLINE {
        constexpr int further = decltype(r)::value * vectors::apart;
        uint32 v[4];
        b.warp.load_shared(v, address(position, constant<further>{}));
        b.cluster.store(to + address_type(sent + further * 2), v);
      });
      position += tile, sent = next(sent);
    };
    send();
    b.cluster.wait(), b.cluster.arrive();
    for (int n = 1; n <= tiles; n++) {
      if (n < tiles) send();
      b.cluster.wait();
      store_tile(b);
      stored = next(stored);
      b.cluster.arrive();
    }
  }

 private:
  /// Number of this warp among those that store; negative if it does not.
  TCNCA_HOST_DEVICE static int store_warp(Block const& b) { return b.warp_index - (g.first_warp + g.warps - warps); }
  TCNCA_HOST_DEVICE static int next(int buffer) {
    return buffer == (buffers - 1) * storer::bytes ? 0 : buffer + storer::bytes;
  }
  TCNCA_HOST_DEVICE void choose(Block const& b, tensor_item const& i) {
    exchange.begin(b.params.y, i.batch, i.channel - b.rank(), i.first, b.params.y_vectorizable);
    skip = i.begin - i.first, left = i.end - i.first;
  }
  TCNCA_HOST_DEVICE void store_tile(Block const& b) {
    if (skip > 0) exchange.skip();
    else if (store_warp(b) >= 0) exchange.store(stored, left);
    skip -= tile, left -= tile;
  }
};

/// The output of a stage that is not the last one.
struct tensor_no_output {
  template <class Block>
  TCNCA_HOST_DEVICE explicit tensor_no_output(Block const&) {}
};

template <class Block>
using tensor_input =
    typename tensor_select<Block::channels_last, tensor_row_input<Block>, tensor_channel_input<Block>>::type;
template <class Block>
using tensor_output =
    typename tensor_select<Block::channels_last, tensor_row_output<Block>, tensor_channel_output<Block>>::type;

}  // namespace tcnca::detail
