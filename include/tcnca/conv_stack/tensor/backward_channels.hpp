// Channels-last sequences in the tensor-core backward kernel: a cluster of eight groups processes eight neighbouring
// channels, one a group (channel_exchange.hpp).
//
// Two barriers of the cluster a step. At its beginning a group arrives: it has completed the step before, and sent
// grad_x. After the first phase it waits, stores the next tiles of x and grad_y in the rings of all groups and the last
// window of grad_x in memory, and arrives; before the last phase, which needs grad_y and sends grad_x, it waits. With
// four levels and more, x and grad_y share a staging buffer: grad_y follows some phases later, and then the arrival.
#pragma once
#include "../../block/channel_exchange.hpp"
#include "../pass.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Rows along the length.
template <class Group, element T, int Tile, int Warps, bool SharesStaging, bool ChannelsLast>
struct tensor_backward_exchange {
  TCNCA_HOST_DEVICE tensor_backward_exchange(Group, typename warp_of<Group>::address_type) {}
};

/// SharesStaging: tiles of x and grad_y are in the same staging buffer, one after the other.
template <class Group, element T, int Tile, int Warps, bool SharesStaging>
struct tensor_backward_exchange<Group, T, Tile, Warps, SharesStaging, true> {
  using warp_type = warp_of<Group>;
  using address_type = typename warp_type::address_type;
  using loader = channel_loader<Group, T, Tile, Warps>;
  using storer = channel_storer<Group, T, Tile, Warps>;

  cluster_of<Group, 8> cluster{};
  loader x, grad_y;
  storer grad_x;
  int length = 0, x_position = 0, grad_y_position = 0, grad_x_position = 0;  // of the next tiles

  static constexpr int inputs = SharesStaging ? 1 : 2;  // staging buffers of x and grad_y
  /// `staging`: those buffers, then one of grad_x.
  TCNCA_HOST_DEVICE tensor_backward_exchange(Group group, address_type staging)
      : x(group, staging, warp_type{}.uniform(group.rank() / warp_size)),
        grad_y(group, staging + address_type((inputs - 1) * loader::bytes),
               warp_type{}.uniform(group.rank() / warp_size)),
        grad_x(group, staging + address_type(inputs * loader::bytes), warp_type{}.uniform(group.rank() / warp_size)) {}

  TCNCA_HOST_DEVICE int rank() const { return cluster.rank(); }

  /// Begins an item whose walk begins at `begin` and whose first window of grad_x at `window`; fetches the first tiles.
  /// Ends with a barrier of the cluster: the rings are clear.
  template <class Params>
  TCNCA_HOST_DEVICE void begin(warp_type const& warp, Params const& p, index_t batch, index_t channel, int begin,
                               int window) {
    length = int(p.x.extent[2]);
    x_position = grad_y_position = begin, grad_x_position = window;
    x.begin(p.x, batch, channel - rank(), begin, p.x_vectorizable);
    grad_y.begin(p.grad_y, batch, channel - rank(), begin, p.grad_y_vectorizable);
    grad_x.begin(p.grad_x, batch, channel - rank(), window, p.grad_x_vectorizable);
    fetch(warp, true, !SharesStaging);
    cluster.sync();
  }
  /// Fetches the next tiles, to staging buffers that were scattered.
  TCNCA_HOST_DEVICE void fetch(warp_type const& warp, bool next_x, bool next_grad_y) {
    if (next_x) {
      x.fetch(warp, 0, length - x_position);
      x_position += Tile;
    }
    if (next_grad_y) {
      grad_y.fetch(warp, 0, length - grad_y_position);
      grad_y_position += Tile;
    }
    warp.commit();
  }
  template <class Place>
  TCNCA_HOST_DEVICE void scatter_x(warp_type const& warp, Place place) const {
    warp.wait();
    x.scatter(0, place);
  }
  /// After scatter_x, which waits for the copies.
  template <class Place>
  TCNCA_HOST_DEVICE void scatter_grad_y(Place place) const {
    grad_y.scatter(0, place);
  }
  /// Sends the vector of positions from offset + more of a window on to the group that stores it.
  template <int More>
  TCNCA_HOST_DEVICE void send(int offset, constant<More>, uint32 const (&words)[4]) const {
    if constexpr (More % storer::period == 0) {
      cluster.store(grad_x.address(offset) + address_type(More * int(sizeof(T))), words);
    } else {
      cluster.store(grad_x.address(offset + More), words);
    }
  }
  /// Stores the window that was sent: its positions in [first, last).
  TCNCA_HOST_DEVICE void store_grad_x(int first, int last) {
    grad_x.store(0, last - grad_x_position, first - grad_x_position);
    grad_x_position += Tile;
  }
};

}  // namespace tcnca::detail
