// Packs in the caller's memory: of one channel (lanes along the length) or of several channels (lanes along the
// channels).
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

/// The channels of one sequence that a group processes. Members are called by one thread.
template <class T, lanes Lanes>
struct sequence_lanes {
  using value = pack<accumulate_t<typename detail::remove_const<T>::type>, Lanes.width>;

  T* row = nullptr;          // position 0 of the first channel
  index_t stride = 1;        // between positions
  index_t channels = 1;      // channels that exist, at most the lanes
  bool vectorizable = true;  // packs may be accessed as vectors

  sequence_lanes() = default;
  TCNCA_HOST_DEVICE sequence_lanes(sequence_view<T> const& v, index_t batch, index_t channel, bool aligned)
      : row(v.at(batch, channel, 0)),
        stride(Lanes.along_length ? 1 : v.stride[2]),
        channels(min_of(index_t(Lanes.channels()), v.extent[1] - channel)),
        vectorizable(aligned) {}

  /// Lanes of pack p that exist where `valid` positions are left.
  TCNCA_HOST_DEVICE index_t existing(int p, index_t valid) const {
    if constexpr (Lanes.channels() == 1) {  // exists, because the group has it
      return min_of(index_t(Lanes.width), valid);
    } else {
      return min_of(index_t(Lanes.width), max_of(index_t(0), channels - p * Lanes.width));
    }
  }
  /// Pack p at position t, `valid` positions before the end; lanes that do not exist are zero.
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

/// Whether non-temporal stores are useful: only if packs are whole cache lines, because a partial line is written
/// separately.
template <class T, lanes Lanes>
inline constexpr bool may_stream = Lanes.along_length&& Lanes.width * sizeof(T) == 64;

/// Writes the packs of one tile, positions [first, first + count), of a sequence. store() is called by one thread per
/// pack. streaming: uses non-temporal stores if may_stream; every complete pack must then start at a cache line, and
/// the result is visible to other threads after end_streaming().
template <class T, lanes Lanes>
class sequence_writer {
 public:
  TCNCA_HOST_DEVICE sequence_writer(sequence_lanes<T, Lanes> const& y, index_t first, index_t count,
                                    bool streaming = false)
      : y_(y),
        first_(first),
        count_(count),
        row_(y.row + first * y.stride),
        last_complete_(Lanes.along_length && y.vectorizable ? int(count) - Lanes.width : -1),
        streaming_(streaming) {}

  TCNCA_HOST_DEVICE void store(int offset, int p, typename sequence_lanes<T, Lanes>::value v) const {
    if (Lanes.along_length && offset <= last_complete_) {
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
  int last_complete_;  // the last offset of a pack that lies within the tile; -1: none may be accessed as a vector
  bool streaming_;
};

}  // namespace tcnca
