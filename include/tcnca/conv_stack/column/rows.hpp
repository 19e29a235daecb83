// Columns of a sequence: which thread owns which, and the access to their rows in memory.
#pragma once
#include "../../block/mma.hpp"
#include "../../core/tensor.hpp"
#include "../shape.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// W neighbouring elements of a row as they are in memory: two 16-bit elements in one register.
template <element T, int W>
struct raw_elements {
  alignas(sizeof(T) * size_t(W)) array<T, W> e;
  TCNCA_HOST_DEVICE pack<accumulate_t<T>, W> widen() const { return load<W>(e); }
  TCNCA_HOST_DEVICE static raw_elements narrow(pack<accumulate_t<T>, W> a) {
    raw_elements r;
    store<W>(r.e, a);
    return r;
  }
};
template <element T>
requires(sizeof(T) == 2) struct raw_elements<T, 2> {
  uint32 pair;
  TCNCA_HOST_DEVICE pack<float, 2> widen() const {
    auto a = broadcast<2>(element_of_pair<T>(pair, 0));
    a.set_lane(1, element_of_pair<T>(pair, 1));
    return a;
  }
  TCNCA_HOST_DEVICE static raw_elements narrow(pack<float, 2> a) { return {element_pair<T>(a.lane(0), a.lane(1))}; }
};
template <element T, int W>
TCNCA_HOST_DEVICE raw_elements<T, W> load_raw(T const* p) {
  return *reinterpret_cast<raw_elements<T, W> const*>(p);
}
template <element T, int W>
TCNCA_HOST_DEVICE void store_raw(T* p, raw_elements<T, W> a) {
  *reinterpret_cast<raw_elements<T, W>*>(p) = a;
}

/// a b + c in each lane, rounded once wherever the target can: the CPU has no such instruction for vectors of two
/// floats.
template <class A, int W>
TCNCA_HOST_DEVICE pack<A, W> fma_by_lane(pack<A, W> a, pack<A, W> b, pack<A, W> c) {
  TCNCA_UNROLL
  for (int i = 0; i < W; i++)
    c.set_lane(i, fma(pack<A, 1>{a.lane(i)}, pack<A, 1>{b.lane(i)}, pack<A, 1>{c.lane(i)}).lane(0));
  return c;
}

/// The rows of a column. They are counted from the end of the sequence: the last row ends there, the first one that is
/// not empty may lack its first columns. Then all columns of a sequence have the same last row, and neighbouring
/// columns stay aligned in every row if the length, d and the strides are multiples of the alignment.
template <index_t Dilation, int Rows, bool AlongLength = true>
struct column_rows {
  int blocks;  // of Rows rows, at least 1
  int begin;   // position of row 0, which may be before the sequence
  int first;   // the first row in the sequence

  TCNCA_HOST_DEVICE column_rows(index_t length, index_t column) {
    constexpr uint32 d = uint32(Dilation), block = d * Rows;
    blocks = int(max_of(uint32(1), (uint32(length) + block - 1) / block));
    begin = int(length - index_t(blocks) * block + column);
    first = begin < 0 ? int((d - 1 - uint32(begin)) / d) : 0;
  }
  /// Distance of two positions of a sequence with this stride along its length.
  TCNCA_HOST_DEVICE static constexpr index_t position_step(index_t stride) { return AlongLength ? 1 : stride; }
  /// The element of row 0, and the distance to that of the next row.
  template <class U>
  TCNCA_HOST_DEVICE U* row_0(sequence_view<U> const& v, index_t batch, index_t channel) const {
    return v.at(batch, channel, 0) + index_t(begin) * position_step(v.stride[2]);
  }
  template <class U>
  TCNCA_HOST_DEVICE static index_t row_step(sequence_view<U> const& v) {
    return Dilation * position_step(v.stride[2]);
  }
};

/// A group owns the columns of some channels and of consecutive positions of a row. Channels first: one channel, and
/// the threads lie along the row. Channels last: up to 32 threads lie along the channels, where they access
/// consecutive elements, the others along the row.
template <class Group, bool AlongLength, int Width>
struct column_partition {
  int channel_threads;       // threads along the channels
  index_t channel_groups;    // of channels that a group owns
  index_t position_groups;   // of positions of a row that a group owns
  index_t first, positions;  // the positions [first, first + positions) of a row, counted from its first column

  /// `positions`: the columns of a row that exist; they are its last ones.
  TCNCA_HOST_DEVICE column_partition(index_t channels, index_t dilation, index_t existing)
      : channel_threads(threads_along_channels(channels)),
        channel_groups(AlongLength ? channels : divide_up(channels, index_t(channel_threads) * Width)),
        position_groups(divide_up(existing, positions_per_group())),
        first(dilation - existing),
        positions(existing) {}

  TCNCA_HOST_DEVICE static int threads_along_channels(index_t channels) {
    int n = 1;
    if constexpr (!AlongLength) {
      while (n < min_of(32, Group::size()) && n * Width < channels) n *= 2;
    }
    return n;
  }
  /// Positions of a row that a group owns.
  TCNCA_HOST_DEVICE index_t positions_per_group() const {
    return AlongLength ? index_t(Group::size()) * Width : index_t(Group::size() / channel_threads);
  }
  /// Channel and column of element e of the calling thread. vector: the elements are neighbours in memory, else those
  /// of neighbouring threads are.
  struct place {
    index_t channel, column;
  };
  TCNCA_HOST_DEVICE place of(int rank, index_t channel_group, index_t position_group, int e, bool vector) const {
    int const lane = AlongLength ? rank : rank % channel_threads, lanes = AlongLength ? Group::size() : channel_threads;
    int const offset = vector ? lane * Width + e : lane + e * lanes;
    index_t const position = first + position_group * positions_per_group();
    if constexpr (AlongLength) {
      return {channel_group, position + offset};
    } else {
      return {channel_group * channel_threads * Width + offset, position + rank / channel_threads};
    }
  }
};

}  // namespace tcnca::detail
