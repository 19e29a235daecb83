// Channels-last sequences for kernels that process rows along the length: a cluster of eight groups takes eight
// neighbouring channels of one sequence, one channel a group. The groups divide the positions of a tile; each copies
// all eight channels of its positions, transposes them, and stores every channel in the shared memory of its group.
// Outputs take the opposite way.
//
//   input     channel_loader::fetch    global memory -> staging buffer of this group, asynchronous
//             channel_loader::scatter  staging buffer -> buffers of all groups of the cluster
//   output    channel_storer::address  where a group stores its outputs: staging buffers of all groups
//             channel_storer::store    staging buffer of this group -> global memory
//
// Nothing here waits for other groups. The agent orders them by the barrier of the cluster:
//   - one barrier before the first scatter, because a group may not have started;
//   - scatter, barrier, use of the tile; use, barrier, the next scatter to the same place;
//   - stores to channel_storer::address, barrier, store; store, barrier, the next stores to the same buffer;
//   - no group ends before a barrier that follows the last stores of the others.
// With cluster_of::arrive and wait a barrier costs little: a group arrives after its stores of a step and waits in the
// next step, at the price of one more place in each buffer.
//
// 16-bit types: 16 bytes are the eight channels of a position. ldmatrix with transposition gives each lane eight
// positions of one channel, or the eight channels of one position, because the order of its row addresses is free.
// Wider types: a lane loads 16-byte vectors of as many positions as a vector has elements, and the transposition only
// renames registers. Staging buffers are swizzled: no access has bank conflicts.
#pragma once
#include "../core/tensor.hpp"
#include "cluster.hpp"
#include "mma.hpp"
#include "unroll.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How the positions of a tile are divided. A warp processes a unit at a time; unit u of a tile belongs to group u % 8
/// of the cluster, and there the units are dealt to the warps in turn.
template <element T>
struct channel_units {
  static constexpr int channels = 8;                                     // groups of the cluster
  static constexpr int vector = int(16 / sizeof(T));                     // elements of 16 bytes
  static constexpr int parts = channels / vector;                        // vectors of a position
  static constexpr bool by_matrices = parts == 1;                        // by ldmatrix
  static constexpr int columns = warp_size / parts;                      // lanes that share a part of the channels
  static constexpr int positions = by_matrices ? 32 : columns * vector;  // of a unit
  static constexpr int bytes = positions * channels * int(sizeof(T));    // of a unit
  static constexpr int period = channels * positions;                    // from a unit to the next of the same group

  static_assert(channels % vector == 0);
};

/// Base class of an agent whose groups exchange channels, or do not.
template <bool Exchanges>
struct channel_cluster {};
template <>
struct channel_cluster<true> {
  static constexpr int cluster_size = 8;
};

namespace detail {

/// What loader and storer have in common: eight channels of a sequence, and a lane's part of them.
template <class Group, class U, element T, int Tile, int Warps>
struct channel_tile {
  using units = channel_units<T>;
  using warp_type = warp_of<Group>;
  using address_type = typename warp_type::address_type;
  static constexpr int vector = units::vector, parts = units::parts, words = int(sizeof(T) / 4);
  static constexpr int bytes = Tile * int(sizeof(T));  // of a staging buffer
  static constexpr int own_units = Tile / units::period, rounds = divide_up(own_units, Warps);
  // From a warp's unit to its next one.
  static constexpr int unit_positions = Warps * units::period, unit_bytes = Warps * units::bytes;
  static_assert(Tile % units::period == 0, "tcnca: a tile is a multiple of eight units");

  warp_type warp;
  cluster_of<Group, units::channels> cluster;
  int number, lane, rank;
  U* data = nullptr;  // this lane's first element of the current tile
  index_t channel_stride = 0, stride = 0, unit_stride = 0;
  int channels = 0;  // that exist, from this lane's first on
  bool vectorizable = false;

  TCNCA_HOST_DEVICE channel_tile(Group group, int warp_number)
      : warp{}, cluster{}, number(warp_number), lane(group.rank() % warp_size), rank(cluster.rank()) {}

  /// Chooses the tile at position t of eight channels. `part`, `position`: which part of the channels and which
  /// position of this warp's first unit are this lane's first.
  TCNCA_HOST_DEVICE void begin(sequence_view<U> const& v, index_t batch, index_t channel, index_t t, bool aligned,
                               int part, int position) {
    channel_stride = v.stride[1], stride = v.stride[2], unit_stride = unit_positions * stride;
    data = v.at(batch, channel, t) + part * vector * channel_stride + (first_position() + position) * stride;
    channels = int(min_of(v.extent[1] - channel, index_t(units::channels)));
    vectorizable = aligned && channel_stride == 1 && channels == units::channels;
    channels -= part * vector;
  }
  /// This warp's first position in a tile.
  TCNCA_HOST_DEVICE int first_position() const { return (number * units::channels + rank) * units::positions; }
  /// f(constant) for each of this warp's units: its number among them.
  template <class F>
  TCNCA_HOST_DEVICE void for_each_unit(F f) const {
    unroll<0, rounds>([&](auto i) TCNCA_INLINE {
      if (is_own(i)) f(i);
    });
  }
  TCNCA_HOST_DEVICE bool is_own(int unit) const {
    return own_units % Warps == 0 || unit < rounds - 1 || number < own_units % Warps;
  }
  /// Moves `data` from behind the last unit of a tile to the following tile.
  TCNCA_HOST_DEVICE void end_tile() {
    if constexpr (own_units % Warps != 0) { data += (Tile - rounds * unit_positions) * stride; }
  }
};

/// Words i of vectors v[0], v[1], ...: the i-th element of each vector.
template <element T>
TCNCA_HOST_DEVICE void transposed_vector(uint32 (&to)[4], uint32 const (&v)[channel_units<T>::vector][4], int i) {
  constexpr int words = int(sizeof(T) / 4);
  TCNCA_UNROLL
  for (int j = 0; j < 4; j++) to[j] = v[j / words][i * words + j % words];
}

}  // namespace detail

/// Loads tiles of eight channels; see above. Used by `Warps` warps of each group, numbered from 0, whose lanes call all
/// functions together. A tile has Tile positions.
template <class Group, element T, int Tile, int Warps>
class channel_loader : detail::channel_tile<Group, T const, T, Tile, Warps> {
  using base = detail::channel_tile<Group, T const, T, Tile, Warps>;
  using typename base::units;
  using base::warp, base::cluster, base::lane, base::data, base::stride, base::channel_stride, base::channels,
      base::vectorizable, base::vector, base::parts, base::first_position;

 public:
  using typename base::address_type;
  /// Of a staging buffer; it begins at a multiple of 128.
  static constexpr int bytes = base::bytes;

  /// `buffers`: the address of the first staging buffer; others follow it, `bytes` apart.
  TCNCA_HOST_DEVICE channel_loader(Group group, address_type buffers, int warp_number) : base(group, warp_number) {
    buffers += address_type(warp_number * units::bytes);
    if constexpr (units::by_matrices) {
      to_ = buffers + address_type(16 * place_of_position(lane));
      // Row i of matrix m is position 8 (i / 2) + 2 m + i % 2: lane 4 c + t gets positions 8 t to 8 t + 7 of channel c.
      from_ = buffers + address_type(16 * place_of_position(lane % 8 / 2 * 8 + lane / 8 * 2 + lane % 2));
    } else {
      to_ = buffers + address_type(16 * (lane ^ lane / 8));
      from_ = buffers + address_type(128 * (lane % units::columns));
    }
  }
  /// Chooses the eight channels from `channel` on, and the tile that begins at position t. Channels that do not exist
  /// are loaded as zeros. `aligned`: all vectors of 16 bytes along the channels are aligned.
  TCNCA_HOST_DEVICE void begin(sequence_view<T const> const& x, index_t batch, index_t channel, index_t t,
                               bool aligned) {
    base::begin(x, batch, channel, t, aligned, lane % parts, lane / parts);
  }
  /// Begins copies of this warp's units of a tile, of which `left` positions exist (may exceed the tile), to the
  /// staging buffer at byte offset `buffer`; zeros from there on. Then the following tile is the current one. The
  /// caller ends the copies by copies.commit() and waits for them before scatter.
  TCNCA_HOST_DEVICE void fetch(warp_of<Group> const& copies, int buffer, int left) {
    address_type const to = to_ + address_type(buffer);
    left -= first_position() + lane / parts;
    if (vectorizable) {
      for_each_vector([&](T const* from, int position, int offset, int swizzle) TCNCA_INLINE {
        copies.copy_16((to ^ address_type(swizzle)) + address_type(offset), from, position < left);
      });
    } else {
      for_each_vector([&](T const* from, int position, int offset, int swizzle) TCNCA_INLINE {
        fetch_elements((to ^ address_type(swizzle)) + address_type(offset), from, position < left);
      });
    }
  }
  /// Stores this warp's units in the memory of all groups. place(position, further) is the address in this group's
  /// memory of the 16-byte vector of positions from position + further of the tile on; the other groups have it in the
  /// same place. `further` is a constant.
  template <class Place>
  TCNCA_HOST_DEVICE void scatter(int buffer, Place place) const {
    warp.sync();  // the copies of all lanes have been waited for
    address_type const from = from_ + address_type(buffer);
    base::for_each_unit([&](auto unit) TCNCA_INLINE {
      constexpr int further = decltype(unit)::value * base::unit_positions,
                    offset = decltype(unit)::value * base::unit_bytes;
      if constexpr (units::by_matrices) {
        uint32 v[4];
        warp.load_matrices_transposed(v, from + address_type(offset));
        cluster.store(cluster.address(place(first_position() + lane % 4 * 8, constant<further>{}), lane / 4), v);
      } else {
        uint32 v[vector][4], w[4];
        int const part = lane / units::columns, column = lane % units::columns;
        TCNCA_UNROLL
        for (int i = 0; i < vector; i++)
          warp.load_shared(v[i], from + address_type(offset + 16 * ((parts * i + part) ^ column % 8)));
        address_type const to = place(first_position() + column * vector, constant<further>{});
        TCNCA_UNROLL
        for (int c = 0; c < vector; c++) {
          detail::transposed_vector<T>(w, v, c);
          cluster.store(cluster.address(to, part * vector + c), w);
        }
      }
    });
    warp.sync();  // the next fetch overwrites the buffer
  }

 private:
  address_type to_, from_;  // of this lane's first vectors

  /// By ldmatrix: where the vector of a position of a unit is. Eight neighbours, and the eight rows of a matrix, are in
  /// different banks.
  TCNCA_HOST_DEVICE static constexpr int place_of_position(int p) { return p ^ (p / 8 & 3) << 1; }
  /// f(from, position, offset, swizzle) for this lane's vectors of the current tile: the source, the position relative
  /// to the first vector, and constants of the address (to_ XOR swizzle) + offset.
  template <class F>
  TCNCA_HOST_DEVICE void for_each_vector(F f) {
    unroll<0, base::rounds>([&](auto unit) TCNCA_INLINE {
      if (base::is_own(unit)) {
        TCNCA_UNROLL
        for (int j = 0; j < units::positions * parts / warp_size; j++)
          f(data + j * units::columns * stride, int(unit) * base::unit_positions + j * units::columns,
            int(unit) * base::unit_bytes + j * 16 * warp_size, j % 2 * 64);
      }
      data += base::unit_stride;
    });
    base::end_tile();
  }
  TCNCA_HOST_DEVICE void fetch_elements(address_type to, T const* from, bool present) const {
    TCNCA_UNROLL
    for (int e = 0; e < vector; e++) {
      T const x = present && e < channels ? from[e * channel_stride] : T{};
      if constexpr (sizeof(T) == 2) {
        warp.store_shared_16(to + address_type(2 * e), x.bits);
      } else {
        uint32 w[sizeof(T) / 4];
        __builtin_memcpy(w, &x, sizeof(T));
        warp.store_shared(to + address_type(e * int(sizeof(T))), w);
      }
    }
  }
};

/// Stores tiles of eight channels, which all threads of the cluster have written to staging buffers; see above. Used by
/// `Warps` warps of each group, numbered from 0, whose lanes call begin and store together.
template <class Group, element T, int Tile, int Warps>
class channel_storer : detail::channel_tile<Group, T, T, Tile, Warps> {
  using base = detail::channel_tile<Group, T, T, Tile, Warps>;
  using typename base::units;
  using base::warp, base::cluster, base::lane, base::rank, base::data, base::stride, base::channel_stride,
      base::channels, base::vectorizable, base::vector, base::first_position;

 public:
  using typename base::address_type;
  /// Of a staging buffer; it begins at a multiple of 128.
  static constexpr int bytes = base::bytes;
  /// Positions so far apart go to the same group.
  static constexpr int period = units::period;

  TCNCA_HOST_DEVICE channel_storer(Group group, address_type buffers, int warp_number)
      : base(group, warp_number), buffers_(buffers) {
    from_ =
        buffers + address_type(warp_number * units::bytes) +
        address_type(16 * (units::by_matrices
                               // Row i of matrix m is channel 2 m + i % 2, positions 8 (i / 2) to 8 (i / 2) + 7: lane
                               // 4 g + t gets the eight channels of position 8 t + g.
                               ? (lane / 8 * 2 + lane % 2) * 4 + lane % 8 / 2
                               : lane / units::columns * vector * units::columns + lane % units::columns));
  }
  /// Chooses the eight channels from `channel` on, and the tile that begins at position t. Channels that do not exist
  /// are not stored.
  TCNCA_HOST_DEVICE void begin(sequence_view<T> const& y, index_t batch, index_t channel, index_t t, bool aligned) {
    if constexpr (units::by_matrices) {
      base::begin(y, batch, channel, t, aligned, 0, lane % 4 * 8 + lane / 4);
    } else {
      base::begin(y, batch, channel, t, aligned, lane / units::columns, lane % units::columns * vector);
    }
  }
  /// The address, for cluster_of::store, of this group's channel at `position` of a tile in staging buffer 0. Elements
  /// up to the next multiple of `vector` positions follow. `n` buffers on: + n * bytes. `n` positions on, a multiple of
  /// period: + n * sizeof(T). Called by any thread.
  TCNCA_HOST_DEVICE address_type address(int position) const {
    int const at = position / units::period * units::bytes +
                   (rank * units::positions + position % units::positions) * int(sizeof(T));
    return cluster.address(buffers_ + address_type(at), position / units::positions % units::channels);
  }
  /// Stores this warp's units of a tile from the staging buffer at byte offset `buffer`: the positions from `skip` on,
  /// before `left` > skip, which may exceed the tile. Then the following tile is the current one.
  TCNCA_HOST_DEVICE void store(int buffer, int left, int skip = 0) {
    address_type const from = from_ + address_type(buffer);
    int const first = first_position() - skip;
    auto const is_stored = [&](int position) TCNCA_INLINE { return uint32(first + position) < uint32(left - skip); };
    unroll<0, base::rounds>([&](auto unit) TCNCA_INLINE {
      constexpr int further = decltype(unit)::value * base::unit_positions,
                    offset = decltype(unit)::value * base::unit_bytes;
      if (base::is_own(unit)) {
        if constexpr (units::by_matrices) {
          uint32 v[4];
          warp.load_matrices_transposed(v, from + address_type(offset));
          if (is_stored(further + lane % 4 * 8 + lane / 4)) store_vector(data, v);
        } else {
          uint32 v[vector][4], w[4];
          TCNCA_UNROLL
          for (int c = 0; c < vector; c++)
            warp.load_shared(v[c], from + address_type(offset + 16 * c * units::columns));
          TCNCA_UNROLL
          for (int i = 0; i < vector; i++) {
            detail::transposed_vector<T>(w, v, i);
            if (is_stored(further + lane % units::columns * vector + i)) store_vector(data + i * stride, w);
          }
        }
      }
      data += base::unit_stride;
    });
    base::end_tile();
  }
  /// The following tile is the current one; this one is not stored.
  TCNCA_HOST_DEVICE void skip() { data += Tile * stride; }

 private:
  address_type buffers_, from_;
  struct alignas(16) four_words {
    uint32 word[4];
  };

  TCNCA_HOST_DEVICE void store_vector(T* to, uint32 const (&v)[4]) const {
    if (vectorizable) {
      *reinterpret_cast<four_words*>(to) = {{v[0], v[1], v[2], v[3]}};
    } else {
      T x[vector];
      __builtin_memcpy(x, v, sizeof(v));
      TCNCA_UNROLL
      for (int e = 0; e < vector; e++)
        if (e < channels) to[e * channel_stride] = x[e];
    }
  }
};

}  // namespace tcnca
