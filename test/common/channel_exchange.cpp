// Channels-last sequences through clusters: every element reaches the group of its channel and comes back, for all
// sizes of elements, placements, numbers of channels and lengths around a tile.
#include <tcnca/block/channel_exchange.hpp>
#include <tcnca/launch/launch.hpp>

#include "support/backend.hpp"
#include "support/tensor.hpp"

namespace tcnca::testing {

template <class T>
struct delay_params {
  sequence_view<T const> x;
  sequence_view<T> y;
  bool x_aligned = false, y_aligned = false;
};

/// Delays odd channels by one tile: y[b, c, t] = x[b, c, t - c % 2 * tile]. Tiles of all items of a cluster follow each
/// other: in step n tile n is processed, n + 1 scattered, n + 3 fetched, and n - 2 stored.
template <class Group, element T>
struct delay_agent {
  using A = accumulate_t<T>;
  using group_type = Group;
  using params_type = delay_params<T>;
  using units = channel_units<T>;
  using address_type = typename warp_of<Group>::address_type;
  static constexpr int cluster_size = units::channels, tile = 1024, loaders = 2, storers = 3, slots = 4;
  static constexpr bool persistent = true;
  using loader = channel_loader<Group, T, tile, loaders>;
  using storer = channel_storer<Group, T, tile, storers>;
  static constexpr int ring_bytes = slots * tile * int(sizeof(T));

  static constexpr index_t items(params_type const& p) {
    return p.x.extent[0] * divide_up(p.x.extent[1], index_t(cluster_size));
  }
  static constexpr group_memory memory(params_type const&) {
    return {.shared_memory_bytes = size_t(ring_bytes + 2 * loader::bytes + 3 * storer::bytes)};
  }

  Group group;
  params_type const& p;
  address_type ring;
  warp_of<Group> warp;
  cluster_of<Group, cluster_size> cluster;
  int number;
  loader load;
  storer store;
  index_t tiles = 0;  // of an item

  TCNCA_HOST_DEVICE delay_agent(Group g, params_type const& params, A* shared, A*)
      : group(g),
        p(params),
        ring(warp_of<Group>::address(shared)),
        warp{},
        cluster{},
        number(warp.uniform(g.rank() / warp_size)),
        load(g, ring + address_type(ring_bytes), number),
        store(g, ring + address_type(ring_bytes + 2 * loader::bytes), number),
        tiles(divide_up(p.x.extent[2], index_t(tile))) {
    cluster.sync();
  }

  /// The address of the vector of positions from `position` on of a tile.
  TCNCA_HOST_DEVICE address_type place(index_t number_of_tile, int position) const {
    int const vector = position / units::vector;
    return ring + address_type(int(number_of_tile % slots) * (tile * int(sizeof(T))) + 16 * (vector ^ vector / 8 % 8));
  }
  TCNCA_HOST_DEVICE index_t batch(index_t item) const { return item / divide_up(p.x.extent[1], index_t(cluster_size)); }
  TCNCA_HOST_DEVICE index_t channel(index_t item) const {
    return item % divide_up(p.x.extent[1], index_t(cluster_size)) * cluster_size;
  }
  TCNCA_HOST_DEVICE void fetch(item_range items, index_t n) {
    if (n < items.count() * tiles) {
      index_t const item = items[n / tiles];
      if (n % tiles == 0) load.begin(p.x, batch(item), channel(item), 0, p.x_aligned);
      load.fetch(warp, int(n % 2) * loader::bytes, int(p.x.extent[2] - n % tiles * tile));
    }
    warp.commit();
  }
  TCNCA_HOST_DEVICE void scatter(item_range items, index_t n) const {
    warp.template wait<1>();
    if (n >= items.count() * tiles) return;
    load.scatter(int(n % 2) * loader::bytes,
                 [&](int position, auto further) TCNCA_INLINE { return place(n, position + further); });
  }
  TCNCA_HOST_DEVICE void process(index_t n) const {
    int const vectors = tile / units::vector;
    bool const delayed = cluster.rank() % 2 != 0;
    for (int i = group.rank(); i < vectors; i += Group::size()) {
      uint32 v[4] = {};
      if (!delayed || n % tiles > 0) warp.load_shared(v, place(n - delayed, i * units::vector));
      cluster.store(store.address(i * units::vector) + address_type(int(n % 3) * storer::bytes), v);
    }
  }
  TCNCA_HOST_DEVICE void operator()(item_range items) {
    index_t const all = items.count() * tiles;
    if (number < loaders) {
      fetch(items, 0), fetch(items, 1);
      scatter(items, 0), fetch(items, 2);
    }
    cluster.arrive();
    for (index_t n = 0; n < all + 2; n++) {
      cluster.wait();
      if (number < loaders) scatter(items, n + 1), fetch(items, n + 3);
      if (number < storers && n >= 2) {
        index_t const item = items[(n - 2) / tiles];
        index_t const t = (n - 2) % tiles * tile;
        if (t == 0) store.begin(p.y, batch(item), channel(item), t, p.y_aligned);
        store.store(int((n - 2) % 3) * storer::bytes, int(p.x.extent[2] - t));
      }
      cluster.arrive();
      if (n < all) process(n);
    }
    cluster.wait();
  }
};

namespace {

template <class S>
struct channel_exchange : ::testing::Test {};
template <class T, class B>
struct exchange_subject {
  using element_type = T;
  using backend = B;
};
using backend = std::tuple_element_t<0, fiber_or_cuda>;
using subjects = ::testing::Types<exchange_subject<bf16, backend>, exchange_subject<float, backend>,
                                  exchange_subject<double, backend>>;
TYPED_TEST_SUITE(channel_exchange, subjects);

TYPED_TEST(channel_exchange, delays_channels) {
  using T = typename TypeParam::element_type;
  TCNCA_TEST_NEEDS(backend);
  using executor = typename backend::executor;
  using traits = executor_traits<executor>;
  using agent = delay_agent<typename traits::template group<128>, T>;
  if (!traits::template supports<agent, delay_params<T>>(backend::make(1))) GTEST_SKIP() << "no clusters";
  struct extents {
    index_t batch, channels, length;
    placement where;
  };
  std::uint64_t seed = 1;
  for (extents const& e : {extents{1, 8, 1024, {}},
                           {2, 16, 5000, {}},
                           {1, 24, 1023, {8, 8}},
                           {1, 8, 2049, {8, 0}},
                           {3, 13, 1500, {}},
                           {1, 8, 700, {0, 1}},
                           {2, 1, 3000, {3, 1}},
                           {1, 20, 33, {4, 0}},
                           {5, 8, 1, {}}}) {
    SCOPED_TRACE(::testing::Message() << e.batch << " x " << e.channels << " x " << e.length);
    auto x = tensor<T, 3>::sequence(layout::batch_length_channels, e.batch, e.channels, e.length, e.where);
    auto y = tensor<T, 3>::sequence(layout::batch_length_channels, e.batch, e.channels, e.length, e.where);
    random_bits random{seed};
    for (index_t i = 0; i < x.count(); i++) *x.at(i) = from_double<T>(uniform(random));
    auto const aligned = [](auto const& v) {
      return reinterpret_cast<std::uintptr_t>(v.data) % 16 == 0 && v.stride[0] * index_t(sizeof(T)) % 16 == 0 &&
             v.stride[2] * index_t(sizeof(T)) % 16 == 0;
    };
    delay_params<T> const params{x.view(), y.view(), aligned(x.view()), aligned(y.view())};
    ASSERT_EQ(launch<agent>(backend::make(seed++), params).code(), status_code::success);
    backend::finish();
    EXPECT_TRUE(y.intact());
    index_t wrong = 0;
    for (index_t b = 0; b < e.batch; b++)
      for (index_t c = 0; c < e.channels; c++)
        for (index_t t = 0; t < e.length; t++) {
          index_t const from = t - c % 2 * agent::tile;
          wrong += to_double(*y.view().at(b, c, t)) != (from < 0 ? 0 : to_double(*x.view().at(b, c, from)));
        }
    EXPECT_EQ(wrong, 0);
  }
}

}  // namespace
}  // namespace tcnca::testing
