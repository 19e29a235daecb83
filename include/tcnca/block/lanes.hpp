// Which elements of a sequence a pack holds.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How packs cover a sequence. Along the length: a pack is `width` consecutive positions of one channel and may start
/// at any position. Along the channels: a position has `packs` packs of `width` channels each.
struct lanes {
  int width = 1;
  int packs = 1;
  bool along_length = true;
  int overrun = along_length && width > 1 ? width : 0;  ///< positions that one access may reach past the end of a ring

  /// Positions that a pack covers.
  TCNCA_HOST_DEVICE constexpr int positions() const { return along_length ? width : 1; }
  /// Channels that a position has.
  TCNCA_HOST_DEVICE constexpr int channels() const { return along_length ? 1 : width * packs; }
  /// Whether the ends of a ring are mirrored: packs of several positions may cross its end, so elements before and
  /// after the ring repeat those of the opposite end.
  TCNCA_HOST_DEVICE constexpr bool mirrored() const { return along_length && width > 1; }
  TCNCA_HOST_DEVICE constexpr int mirror_before() const { return mirrored() ? width : 0; }
  TCNCA_HOST_DEVICE constexpr int mirror_after() const { return mirror_before() + overrun; }
};

/// Memory of a ring, in elements of the accumulate type.
template <lanes Lanes>
TCNCA_HOST_DEVICE constexpr size_t ring_elements(index_t positions) {
  return size_t(positions) * size_t(Lanes.channels()) + size_t(Lanes.mirror_before() + Lanes.mirror_after());
}

}  // namespace tcnca
