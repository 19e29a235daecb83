// Tiles of a sequence: their extents, and their way between the caller's memory and shared memory.
#pragma once
#include "../block/scan.hpp"
#include "../block/transpose.hpp"
#include "../core/tensor.hpp"
#include "tuning.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The extents of tiles under a policy, for a group of `Threads`. A tile is `tile` positions of `channels` channels; in
/// shared memory it lies [position][channel] in the accumulate type.
template <int Threads, element T, ema_shape Shape, ema_policy Policy>
struct ema_tiling {
  static_assert(Threads == 1 || (Policy.width == 1 && Policy.rounds == 1),
                "threads that share a sequence process one channel in one round each");
  using A = accumulate_t<T>;
  static constexpr bool shared = Threads > 1;
  static constexpr bool channels_last = Shape.order == layout::batch_length_channels;
  static constexpr int width = Policy.width;
  static constexpr int packs = channels_last && Policy.packs < Threads ? Policy.packs : 1;
  static constexpr int channels = width * packs;  ///< of an item
  static constexpr int segments =
      Threads / packs;  ///< threads that share a sequence; each computes one segment in a round
  static constexpr int outputs_per_thread = Policy.outputs_per_thread;  ///< positions of a segment
  static constexpr int rounds = Policy.rounds;
  static constexpr int tile = round_up(segments * outputs_per_thread * rounds, width);
  /// Elements in one vector access: 16 bytes on a GPU, a register on the CPU. Along the length, tiles must start at
  /// multiples of it.
  static constexpr int vector_elements = width > 1                         ? width
                                         : channels_last                   ? min_of(int(16 / sizeof(T)), channels)
                                         : tile % int(16 / sizeof(T)) == 0 ? int(16 / sizeof(T))
                                                                           : 1;
  static_assert(!channels_last || channels % vector_elements == 0, "the channels of an item must fill whole accesses");
  /// Elements of a tile in shared memory.
  static constexpr int tile_elements = round_up(round_up(tile, vector_elements) * channels, shared ? 32 : 16);
  /// Where element i of a tile lies. A group of several threads: see swizzled(). Channels last, the 16 channels of
  /// positions that two segments access at a time lie in different banks, too.
  TCNCA_HOST_DEVICE static constexpr int place(int i) {
    if constexpr (!shared) {
      return i;
    } else if constexpr (packs == 1) {
      return swizzled<A>(i);
    } else {
      constexpr uint32 part = 16 / sizeof(A), line = 8 * part, of_segment = outputs_per_thread * channels;
      uint32 const n = uint32(i);
      return int(n ^ n / line % 2 * part ^ n / of_segment % 2 * 16);
    }
  }
  /// Memory to transpose a tile whose rows are channels. The stride keeps the rows of a power of two in different cache
  /// sets.
  static constexpr int transpose_stride = tile + width;
  static constexpr int transpose_elements = width > 1 && !channels_last ? width * transpose_stride : 0;
};

namespace detail {

/// The channels of an item in one tensor, and how the threads of a group load and store tiles of them.
template <class Group, class U, class Tiling>
struct ema_sequence {
  using A = typename Tiling::A;
  using value = pack<A, Tiling::width>;
  static constexpr int channels = Tiling::channels, vector_elements = Tiling::vector_elements, W = Tiling::width;
  static constexpr bool transposed = W > 1 && !Tiling::channels_last;

  U* row = nullptr;  // position 0 of the first channel
  index_t channel_stride = 0, position_stride = 1;
  int valid_channels = 0;     // the others lie behind the last channel of the tensor
  bool vectorizable = false;  // vector_elements elements may be accessed at once

  ema_sequence() = default;
  TCNCA_HOST_DEVICE ema_sequence(sequence_view<U> const& v, index_t batch, index_t channel, bool aligned)
      : row(v.at(batch, channel, 0)),
        channel_stride(v.stride[1]),
        position_stride(v.stride[2]),
        valid_channels(int(min_of(index_t(channels), v.extent[1] - channel))),
        vectorizable(aligned) {}

  /// Loads n positions from `first` on; channels that are not valid become zero. Called by all threads; does not sync.
  /// transpose_buffer: Tiling::transpose_elements. The rows are read one after another: if they lie a power of two
  /// apart, reading all at once would evict them from the cache.
  TCNCA_HOST_DEVICE void load(Group group, index_t first, int n, A* to, [[maybe_unused]] A* transpose_buffer) const {
    if constexpr (transposed) {
      for (int i = 0; i < W; i++) {
        U const* const from = row + i * channel_stride + first;
        A* const at = transpose_buffer + i * Tiling::transpose_stride;
        if (i >= valid_channels) {
          for (int t = 0; t < n; t += W) tcnca::store<W>(at + t, broadcast<W>(A(0)));
          continue;
        }
        int t = 0;
        for (; t + W <= n; t += W) tcnca::store<W>(at + t, tcnca::load<W>(from + t));
        if (t < n) tcnca::store<W>(at + t, load_some<W>(from + t, 1, n - t));
      }
      for (int t = 0; t < n; t += W) {
        detail::array<value, W> rows;
        unroll<0, W>([&](auto i) {
          rows[i] = tcnca::load<W>(const_cast<A const*>(transpose_buffer) + i * Tiling::transpose_stride + t);
        });
        transpose(rows);
        unroll<0, W>([&](auto i) { tcnca::store<W>(to + (t + i) * W, rows[i]); });
      }
    } else {
      if constexpr (regular) {
        if (vectorizable && n == Tiling::tile) return load_all(group, row + first, to);
      }
      for_each_access(group, first, n, [&](U const* from, int at, int count) {
        auto const v = vectorizable && count == vector_elements ? tcnca::load<vector_elements>(from)
                                                                : load_some<vector_elements>(from, 1, count);
        for_each_part(at, [&](int place, auto lane, auto part)
                              TCNCA_INLINE { tcnca::store<part>(to + place, part_of<part>(v, lane)); });
      });
    }
  }

  /// Stores n positions from `first` on, valid channels only. Called by all threads; does not sync.
  TCNCA_HOST_DEVICE void store(Group group, index_t first, int n, A const* from,
                               [[maybe_unused]] A* transpose_buffer) const {
    if constexpr (transposed) {
      for (int t = 0; t < n; t += W) {
        detail::array<value, W> rows;
        unroll<0, W>([&](auto i) { rows[i] = tcnca::load<W>(from + (t + i) * W); });
        transpose(rows);
        unroll<0, W>([&](auto i) { tcnca::store<W>(transpose_buffer + i * Tiling::transpose_stride + t, rows[i]); });
      }
      for (int i = 0; i < valid_channels; i++) {
        U* const to = row + i * channel_stride + first;
        A const* const at = transpose_buffer + i * Tiling::transpose_stride;
        int t = 0;
        for (; t + W <= n; t += W) tcnca::store<W>(to + t, tcnca::load<W>(at + t));
        if (t < n) store_some<W>(to + t, 1, n - t, tcnca::load<W>(at + t));
      }
    } else {
      if constexpr (regular) {
        if (vectorizable && n == Tiling::tile) return store_all(group, from, row + first);
      }
      for_each_access(group, first, n, [&](U* to, int at, int count) {
        pack<A, vector_elements> v;
        for_each_part(at, [&](int place, auto lane, auto part)
                              TCNCA_INLINE { set_part(v, lane, tcnca::load<part>(from + place)); });
        if (vectorizable && count == vector_elements) tcnca::store_global<vector_elements>(to, v);
        else store_some<vector_elements>(to, 1, count, v);
      });
    }
  }

  /// CPU, in round r of a tile: prefetches a part of the tile that begins at `first`, so that the whole tile is in the
  /// cache when all rounds are done. `first` may lie outside of the sequence.
  TCNCA_HOST_DEVICE void prefetch([[maybe_unused]] index_t first, [[maybe_unused]] int r,
                                  [[maybe_unused]] index_t length) const {
#if !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)
    if constexpr (W > 1) {
      int const n = first < 0 ? 0 : int(min_of(index_t(Tiling::tile), length - first));
      if constexpr (transposed) {
        for (int i = r; i < valid_channels; i += Tiling::rounds)
          for (int t = 0; t < n; t += int(64 / sizeof(U)))
            __builtin_prefetch(row + i * channel_stride + first + t, 0, 2);
      } else {
        constexpr int outputs = Tiling::outputs_per_thread;
        for (int t = r * outputs; t < min_of(n, (r + 1) * outputs); t++)
          __builtin_prefetch(row + (first + t) * position_stride, 0, 2);
      }
    }
#endif
  }

 private:
  // Whole tiles of neighbouring elements: every thread has the same number of accesses, `stride` elements apart. The
  // places of a thread's vectors are stride apart, too.
  static constexpr int stride = Group::size() * vector_elements;
  static constexpr bool regular =
      Tiling::shared && !Tiling::channels_last && Tiling::tile % stride == 0 && stride % 256 == 0;
  TCNCA_HOST_DEVICE static void load_all(Group group, U const* from, A* to) {
    int const at = group.rank() * vector_elements;
    detail::array<pack<A, vector_elements>, Tiling::tile / stride> v;
    unroll<0, Tiling::tile / stride>([&](auto k) { v[k] = tcnca::load<vector_elements>(from + at + k * stride); });
    for_each_part(at, [&](int place, auto lane, auto part) {
      unroll<0, Tiling::tile / stride>(
          [&](auto k) { tcnca::store<part>(to + place + k * stride, part_of<part>(v[k], lane)); });
    });
  }
  TCNCA_HOST_DEVICE static void store_all(Group group, A const* from, U* to) {
    int const at = group.rank() * vector_elements;
    detail::array<pack<A, vector_elements>, Tiling::tile / stride> v;
    for_each_part(at, [&](int place, auto lane, auto part) {
      unroll<0, Tiling::tile / stride>(
          [&](auto k) { set_part(v[k], lane, tcnca::load<part>(from + place + k * stride)); });
    });
    unroll<0, Tiling::tile / stride>([&](auto k) { tcnca::store_global<vector_elements>(to + at + k * stride, v[k]); });
  }

  /// visit(place, first lane, lanes) for the parts of an access that lie together in a tile: their places differ
  /// in some bits.
  template <class Visit>
  TCNCA_HOST_DEVICE static void for_each_part(int at, Visit visit) {
    constexpr int part = Tiling::shared ? min_of(vector_elements, int(16 / sizeof(A))) : vector_elements;
    int const place = Tiling::place(at);
    unroll<0, vector_elements / part>(
        [&](auto i) { visit(place ^ (i * part), constant<i * part>{}, constant<part>{}); });
  }
  /// visit(pointer to the first element, index in the tile, number of valid elements) for the accesses of this thread.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_access(Group group, index_t first, int n, Visit visit) const {
    if constexpr (Tiling::channels_last) {
      constexpr int accesses = channels / vector_elements;  // of one position
      for (int i = group.rank(); i < n * accesses; i += group.size()) {
        int const t = i / accesses, c = i % accesses * vector_elements;
        int const count = max_of(0, min_of(vector_elements, valid_channels - c));
        if (count > 0) visit(row + (first + t) * position_stride + c, i * vector_elements, count);
        else visit(row, i * vector_elements, 0);
      }
    } else {
      int i = group.rank() * vector_elements;
      U* p = row + first + i;
      for (; i < n; i += group.size() * vector_elements, p += group.size() * vector_elements)
        visit(p, i, min_of(vector_elements, n - i));
    }
  }
};

}  // namespace detail
}  // namespace tcnca
