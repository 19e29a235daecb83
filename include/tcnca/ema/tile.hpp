// Tiles of a sequence between the caller's memory and fast memory, where they lie [position][channel] in the accumulate type.
#pragma once
#include "../block/transpose.hpp"
#include "shape.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The channels that an item works on, of one sequence of a batch, and how its threads move tiles of them.
template <class Group, class U, class Tiling>
struct ema_sequence {
  using A = typename Tiling::A;
  using value = pack<A, Tiling::width>;
  static constexpr int channels = Tiling::channels, vector_elements = Tiling::vector_elements, W = Tiling::width;
  static constexpr bool transposed = W > 1 && !Tiling::channels_last;

  U* row = nullptr;  // position 0 of the first channel
  index_t channel_stride = 0, position_stride = 1;
  int existing = 0;           // channels
  bool vectorizable = false;  // vector_elements elements may be accessed at once

  ema_sequence() = default;
  TCNCA_HOST_DEVICE ema_sequence(sequence_view<U> const& v, index_t batch, index_t channel, bool aligned)
      : row(v.at(batch, channel, 0)),
        channel_stride(v.stride[1]),
        position_stride(v.stride[2]),
        existing(int(min_of(index_t(channels), v.extent[1] - channel))),
        vectorizable(aligned) {}

  /// n positions from `first` on. Lanes that do not exist are zero. Does not sync. stage: Tiling::stage elements.
  /// Rows are read one after another: where they lie a power of two apart, sixteen at once would push each other out of the cache.
  TCNCA_HOST_DEVICE void load(Group group, index_t first, int n, A* to, [[maybe_unused]] A* stage) const {
    if constexpr (transposed) {
      for (int i = 0; i < W; i++) {
        U const* const from = row + i * channel_stride + first;
        A* const at = stage + i * Tiling::stage_stride;
        if (i >= existing) {
          for (int t = 0; t < n; t += W) tcnca::store<W>(at + t, broadcast<W>(A(0)));
          continue;
        }
        int t = 0;
        for (; t + W <= n; t += W) tcnca::store<W>(at + t, tcnca::load<W>(from + t));
        if (t < n) tcnca::store<W>(at + t, load_some<W>(from + t, 1, n - t));
      }
      for (int t = 0; t < n; t += W) {
        detail::array<value, W> rows;
        unroll<0, W>(
            [&](auto i) { rows[i] = tcnca::load<W>(const_cast<A const*>(stage) + i * Tiling::stage_stride + t); });
        transpose(rows);
        unroll<0, W>([&](auto i) { tcnca::store<W>(to + (t + i) * W, rows[i]); });
      }
    } else {
      for_each_access(group, first, n, [&](U const* from, int at, int count) {
        tcnca::store<vector_elements>(to + at, vectorizable && count == vector_elements
                                                   ? tcnca::load<vector_elements>(from)
                                                   : load_some<vector_elements>(from, 1, count));
      });
    }
  }

  TCNCA_HOST_DEVICE void store(Group group, index_t first, int n, A const* from, [[maybe_unused]] A* stage) const {
    if constexpr (transposed) {
      for (int t = 0; t < n; t += W) {
        detail::array<value, W> rows;
        unroll<0, W>([&](auto i) { rows[i] = tcnca::load<W>(from + (t + i) * W); });
        transpose(rows);
        unroll<0, W>([&](auto i) { tcnca::store<W>(stage + i * Tiling::stage_stride + t, rows[i]); });
      }
      for (int i = 0; i < existing; i++) {
        U* const to = row + i * channel_stride + first;
        A const* const at = stage + i * Tiling::stage_stride;
        int t = 0;
        for (; t + W <= n; t += W) tcnca::store<W>(to + t, tcnca::load<W>(at + t));
        if (t < n) store_some<W>(to + t, 1, n - t, tcnca::load<W>(at + t));
      }
    } else {
      for_each_access(group, first, n, [&](U* to, int at, int count) {
        auto const v = tcnca::load<vector_elements>(from + at);
        if (vectorizable && count == vector_elements) tcnca::store<vector_elements>(to, v);
        else store_some<vector_elements>(to, 1, count, v);
      });
    }
  }

  /// CPU, before run r of a tile: brings a share of the tile from `first` on nearer, while there is other work to do.
  TCNCA_HOST_DEVICE void prefetch([[maybe_unused]] index_t first, [[maybe_unused]] int r,
                                  [[maybe_unused]] index_t length) const {
#if !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)
    if constexpr (W > 1) {
      int const n = first < 0 ? 0 : int(min_of(index_t(Tiling::tile), length - first));
      if constexpr (transposed) {
        for (int i = r; i < existing; i += Tiling::runs)
          for (int t = 0; t < n; t += int(64 / sizeof(U)))
            __builtin_prefetch(row + i * channel_stride + first + t, 0, 2);
      } else {
        for (int t = r * Tiling::run; t < min_of(n, (r + 1) * Tiling::run); t++)
          __builtin_prefetch(row + (first + t) * position_stride, 0, 2);
      }
    }
#endif
  }

 private:
  /// visit(element, place in the tile, elements that exist), each by one thread.
  template <class Visit>
  TCNCA_HOST_DEVICE void for_each_access(Group group, index_t first, int n, Visit visit) const {
    if constexpr (Tiling::channels_last) {
      constexpr int each = channels / vector_elements;
      for (int i = group.rank(); i < n * each; i += group.size()) {
        int const t = i / each, c = i % each * vector_elements,
                  count = max_of(0, min_of(vector_elements, existing - c));
        if (count > 0) visit(row + (first + t) * position_stride + c, i * vector_elements, count);
        else visit(row, i * vector_elements, 0);
      }
    } else {
      for (int i = group.rank() * vector_elements; i < n; i += group.size() * vector_elements)
        visit(row + first + i, i, min_of(vector_elements, n - i));
    }
  }
};

}  // namespace tcnca::detail
