// Channels-last sequences in the register-phase kernel: a cluster of eight groups processes eight neighbouring
// channels, one a group (channel_exchange.hpp).
//
// Two barriers of the cluster a tile, each with a phase between arrival and wait:
//   after the first phase   arrive: the stage of this group is free, the outputs of the tile before are sent
//   before the last phase   wait; the next tile of x goes to the stages, the outputs of the tile before to memory;
//                           arrive
//   after the last phase    wait; the outputs are sent
#pragma once
#include "../../block/channel_exchange.hpp"
#include "tile.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// Called by all threads of all groups of the cluster, which have items of the same length.
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
class phase_exchange {
  using A = accumulate_t<T>;
  using stage_of = phase_stage<T>;
  using warp_type = warp_of<Group>;
  static constexpr conv_stack_phase_plan plan = phase_forward_plan<T, Shape, Layers>;
  static constexpr int tile = plan.tile, vector = stage_of::vector, halo = round_up(plan.phase[0].halo, vector);
  using loader = channel_loader<Group, T, tile, plan.threads / warp_size>;
  using storer = channel_storer<Group, T, tile, plan.threads / warp_size>;
  using address_type = typename loader::address_type;

 public:
  /// Of shared memory; it begins at a multiple of 128.
  static constexpr int bytes = loader::bytes + storer::bytes;

  TCNCA_HOST_DEVICE phase_exchange(Group g, A* memory)
      : group(g),
        load(g, warp_type::address(memory), warp_type{}.uniform(g.rank() / warp_size)),
        store(g, warp_type::address(memory) + address_type(loader::bytes), warp_type{}.uniform(g.rank() / warp_size)) {
    cluster.sync();
  }
  TCNCA_HOST_DEVICE int rank() const { return cluster.rank(); }

  /// Begins an item of this group's channel, which may not exist, with positions [begin, last), of which those from
  /// `first` on are outputs, and fetches its first tile.
  template <class Params>
  TCNCA_HOST_DEVICE void begin(warp_type const& warp, Params const& params, index_t batch, index_t channel, int begin,
                               int first, int last) {
    load.begin(params.x, batch, channel - rank(), begin, params.x_vectorizable);
    store.begin(params.y, batch, channel - rank(), begin, params.y_vectorizable);
    present_ = int(params.x.extent[2]) - begin;
    tiles_ = divide_up(last - begin, tile), left_ = last - begin, skip_ = first - begin;
    sent_ = false;
    fetch(warp);
  }
  /// The first tile goes to the stages; zeros before it.
  TCNCA_HOST_DEVICE void scatter_first(warp_type const& warp, T* stage) {
    scatter(warp, stage);
    for (int i = group.rank() * vector; i < halo; i += Group::size() * vector)
      warp.store_shared(address(stage, i - halo), {0u, 0u, 0u, 0u});
    cluster.sync();
  }
  /// After the first phase and a barrier of the group: keeps the positions of the stage that the next tile looks back
  /// at.
  TCNCA_HOST_DEVICE void keep_halo(T* stage) const {
    warp_type const warp{};
    for (int i = group.rank() * vector; i < halo; i += Group::size() * vector) {
      uint32 v[4];
      warp.load_shared(v, address(stage, tile + i - halo));
      warp.store_shared(address(stage, i - halo), v);
    }
    cluster.arrive();
  }
  /// Before the last phase.
  TCNCA_HOST_DEVICE void exchange(warp_type const& warp, T* stage) {
    cluster.wait();
    if (tiles_ > 0) scatter(warp, stage);
    if (sent_) store_sent();
    cluster.arrive();
  }
  /// After the last phase and a barrier of the group: sends the outputs in a buffer.
  TCNCA_HOST_DEVICE void send(A const* buffer) {
    constexpr padded_layout place = plan.buffer[plan.count - 1];
    constexpr int loaded = 16 / int(sizeof(A)), stride = Group::size() * vector;
    static_assert(stride % storer::period == 0 && tile % stride == 0);
    cluster.wait();
    address_type const to = store.address(group.rank() * vector);
    unroll<0, tile / stride>([&](auto n) TCNCA_INLINE {
      constexpr int further = decltype(n)::value * stride;
      struct alignas(16) vector_of_outputs {
        T element[size_t(vector)];
      };
      vector_of_outputs y;
      TCNCA_UNROLL
      for (int e = 0; e < vector; e += loaded)
        tcnca::store<loaded>(y.element + e, tcnca::load<loaded>(buffer + place(further + group.rank() * vector + e)));
      uint32 v[4];
      __builtin_memcpy(v, y.element, sizeof(v));
      cluster.store(to + address_type(further * int(sizeof(T))), v);
    });
    sent_ = true;
  }
  /// Ends an item.
  TCNCA_HOST_DEVICE void end() {
    cluster.sync();
    store_sent();
  }

 private:
  Group group;
  cluster_of<Group, 8> cluster{};
  loader load;
  storer store;
  int tiles_ = 0, present_ = 0;  // tiles of x that are not in the stage, positions from the next one that is fetched on
  int left_ = 0, skip_ = 0;      // of the next tile of y that is stored
  bool sent_ = false;            // a tile of y is in the staging buffers

  TCNCA_HOST_DEVICE static address_type address(T* stage, int position) {
    return warp_type::address(stage) + address_type(stage_of::offset(plan.stage_halo + position) * int(sizeof(T)));
  }
  TCNCA_HOST_DEVICE void fetch(warp_type const& warp) {
    load.fetch(warp, 0, present_);
    warp.commit();
    present_ -= tile;
  }
  /// The tile that was fetched goes to the stages; the next one is fetched.
  TCNCA_HOST_DEVICE void scatter(warp_type const& warp, T* stage) {
    warp.wait();
    load.scatter(0, [&](int position, auto further) TCNCA_INLINE {
      constexpr int offset = stage_of::offset(decltype(further)::value) * int(sizeof(T));
      return address(stage, position) + address_type(offset);
    });
    if (--tiles_ > 0) fetch(warp);
  }
  TCNCA_HOST_DEVICE void store_sent() {
    store.store(0, left_, skip_);
    left_ -= tile, skip_ -= tile;
  }
};

/// Rows along the length.
template <class A>
struct phase_no_exchange {
  static constexpr int bytes = 0;
  template <class Group>
  TCNCA_HOST_DEVICE phase_no_exchange(Group, A*) {}
};

template <class Group, element T, conv_stack_shape Shape, layer_range Layers, bool ChannelsLast>
struct phase_exchange_of {
  using type = phase_no_exchange<accumulate_t<T>>;
};
template <class Group, element T, conv_stack_shape Shape, layer_range Layers>
struct phase_exchange_of<Group, T, Shape, Layers, true> {
  using type = phase_exchange<Group, T, Shape, Layers>;
};

}  // namespace tcnca::detail
