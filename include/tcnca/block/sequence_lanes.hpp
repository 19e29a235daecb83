// Packs in the caller's memory: one row of a sequence (lanes along the length) or a group of its channels (lanes along the channels).
#pragma once
#include "../core/tensor.hpp"
#include "ring.hpp"

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
template <class T>
struct remove_const {
  using type = T;
};
template <class T>
struct remove_const<T const> {
  using type = T;
};
}  // namespace detail

/// The channels that a tile works on, of one sequence of a batch.
template <class T, lanes Lanes>
struct sequence_lanes {
  using value = pack<accumulate_t<typename detail::remove_const<T>::type>, Lanes.width>;

  T* row = nullptr;          // position 0 of the first channel
  index_t stride = 1;        // from a position to the next
  index_t channels = 1;      // of those that the lanes hold, how many there are
  bool vectorizable = true;  // packs may be accessed whole

  sequence_lanes() = default;
  TCNCA_HOST_DEVICE sequence_lanes(sequence_view<T> const& v, index_t batch, index_t channel, bool aligned)
      : row(v.at(batch, channel, 0)),
        stride(Lanes.along_length ? 1 : v.stride[2]),
        channels(min_of(index_t(Lanes.channels()), v.extent[1] - channel)),
        vectorizable(aligned) {}

  /// Lanes of pack p that exist at position t, when `valid` positions are left.
  TCNCA_HOST_DEVICE index_t existing(int p, index_t valid) const {
    return Lanes.along_length ? min_of(index_t(Lanes.width), valid)
                              : min_of(index_t(Lanes.width), max_of(index_t(0), channels - p * Lanes.width));
  }
  /// Pack p at position t; lanes that do not exist are zero.
  TCNCA_HOST_DEVICE value load(index_t t, int p, index_t valid) const {
    T const* const from = row + t * stride + p * Lanes.width;
    index_t const n = existing(p, valid);
    if (vectorizable && n == Lanes.width) return tcnca::load<Lanes.width>(from);
    return load_some<Lanes.width>(from, 1, n);
  }
  TCNCA_HOST_DEVICE void store(index_t t, int p, index_t valid, value v) const {
    T* const to = row + t * stride + p * Lanes.width;
    index_t const n = existing(p, valid);
    if (vectorizable && n == Lanes.width) tcnca::store<Lanes.width>(to, v);
    else store_some<Lanes.width>(to, 1, n, v);
  }
};

/// Whether results of a tile may go past the caches: where packs are whole cache lines, for others half a line would wait for the other half.
template <class T, lanes Lanes>
inline constexpr bool may_stream = Lanes.along_length&& Lanes.width * sizeof(T) == 64;

/// Writes the packs of one tile, positions [first, first + count), of a sequence. Along the length whole packs are told by one comparison.
/// Streaming: past the caches, where may_stream and every whole pack begins a cache line; others see it after end_streaming().
template <class T, lanes Lanes>
class sequence_writer {
 public:
  TCNCA_HOST_DEVICE sequence_writer(sequence_lanes<T, Lanes> const& y, index_t first, index_t count,
                                    bool streaming = false)
      : y_(y),
        first_(first),
        count_(count),
        row_(y.row + first * y.stride),
        whole_(Lanes.along_length && y.vectorizable ? int(count) - Lanes.width : -1),
        streaming_(streaming) {}

  TCNCA_HOST_DEVICE void store(int offset, int p, typename sequence_lanes<T, Lanes>::value v) const {
    if (Lanes.along_length && offset <= whole_) {
      if (may_stream<T, Lanes> && streaming_) store_streaming<Lanes.width>(row_ + offset, v);
      else tcnca::store<Lanes.width>(row_ + offset, v);
    } else {
      y_.store(first_ + offset, p, count_ - offset, v);
    }
  }

 private:
  sequence_lanes<T, Lanes> y_;
  index_t first_, count_;
  T* row_;
  int whole_;  // the last offset at which a pack is whole
  bool streaming_;
};

}  // namespace tcnca
