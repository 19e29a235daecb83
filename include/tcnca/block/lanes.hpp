// Which elements of a sequence a pack holds.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// How packs lie over a sequence. Along the length: a pack is `width` positions of one channel, and may start at any position.
/// Along the channels: a position is `packs` packs of `width` channels each.
struct lanes {
  int width = 1;
  int packs = 1;
  bool along_length = true;
  int margin = along_length && width > 1 ? width : 0;  ///< positions that one access may run past the end of a ring

  /// Positions a pack covers.
  TCNCA_HOST_DEVICE constexpr int positions() const { return along_length ? width : 1; }
  /// Channels a position holds.
  TCNCA_HOST_DEVICE constexpr int channels() const { return along_length ? 1 : width * packs; }
  /// What starts near the end of a ring runs into copies of its first samples: elements before and after the ring itself.
  TCNCA_HOST_DEVICE constexpr int front() const { return along_length && width > 1 ? width : 0; }
  TCNCA_HOST_DEVICE constexpr int back() const { return front() + margin; }
};

/// Memory of a ring, in elements of A.
template <lanes Lanes>
TCNCA_HOST_DEVICE constexpr size_t ring_elements(index_t positions) {
  return size_t(positions) * Lanes.channels() + Lanes.front() + Lanes.back();
}

}  // namespace tcnca
