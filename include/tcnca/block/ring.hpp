// A ring buffer of the newest samples of a sequence, in the group's memory, indexed by position.
#pragma once
#include "lanes.hpp"
#include "pack.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A ring of mask + 1 positions: a power of two, at least four widths and twice the overrun. Positions count modulo
/// 2^32, so negative ones are valid. The memory has mirror_before() + (mask + 1) * channels() + mirror_after()
/// elements; base points to the element at mirror_before(). Members are called by one thread and do not synchronize.
template <class A, lanes Lanes>
struct ring {
  using value = pack<A, Lanes.width>;

  A* base;
  uint32 mask;

  TCNCA_HOST_DEVICE A* at(uint32 position, int p) const {
    return base + size_t(position & mask) * size_t(Lanes.channels()) + p * Lanes.width;
  }
  /// Pack p at the position (for lanes along the length: the positions that start there).
  TCNCA_HOST_DEVICE value load(uint32 position, int p) const {
    return tcnca::load<Lanes.width>(const_cast<A const*>(at(position, p)));
  }

  TCNCA_HOST_DEVICE void store(uint32 position, int p, value v) const {
    A* const to = at(position, p);
    tcnca::store<Lanes.width>(to, v);
    if constexpr (Lanes.mirrored()) {
      uint32 const slot = position & mask;
      if (slot < Lanes.overrun) tcnca::store<Lanes.width>(to + (mask + 1), v);
      if (slot + Lanes.width > mask + 1) tcnca::store<Lanes.width>(to - (mask + 1), v);
    }
  }

  /// One sample of channel c (of those that a position has).
  TCNCA_HOST_DEVICE void store_sample(uint32 position, int c, A v) const {
    uint32 const slot = position & mask;
    base[size_t(slot) * size_t(Lanes.channels()) + size_t(c)] = v;
    if constexpr (Lanes.mirrored()) {
      if (slot < Lanes.overrun) base[size_t(slot) + mask + 1] = v;
    }
  }
  TCNCA_HOST_DEVICE A load_sample(uint32 position, int c) const {
    return base[size_t(position & mask) * size_t(Lanes.channels()) + size_t(c)];
  }
};

/// Writes the packs of one tile, positions [first, first + count), into a ring. store() may be called by any thread for
/// its packs, finish() by all threads after their stores.
///
/// With mirrored ends, store() is one unconditional store: a test for the ends of the ring at every pack costs as much
/// as the sums of the pack. finish() then updates the mirror. A tile that crosses the end of the ring is first written
/// to `staging`, which must hold the longest tile in whole packs. Mirrored rings are used with groups of one thread
/// only.
template <class A, lanes Lanes>
class tile_writer {
 public:
  using value = pack<A, Lanes.width>;

  TCNCA_HOST_DEVICE tile_writer(ring<A, Lanes> r, index_t first, index_t count, [[maybe_unused]] A* staging)
      : ring_(r), first_(uint32(first)), count_(int(count)) {
    if constexpr (Lanes.mirrored()) {
      is_staged_ = (first_ & r.mask) + uint32(round_up(count_, Lanes.width)) > r.mask + 1;
      destination_ = is_staged_ ? staging : r.at(first_, 0);
    }
  }
  TCNCA_HOST_DEVICE void store(int offset, int p, value v) const {
    if constexpr (Lanes.mirrored()) {
      tcnca::store<Lanes.width>(destination_ + offset, v);
    } else {
      ring_.store(first_ + uint32(offset), p, v);
    }
  }
  TCNCA_HOST_DEVICE void finish() const {
    if constexpr (Lanes.mirrored()) {
      uint32 const first = first_ & ring_.mask;
      if (is_staged_) copy_from_staging();
      else if (first < Lanes.overrun) update_mirror(ring_.at(0, 0) + first, min_of(count_, int(Lanes.overrun - first)));
    }
  }

 private:
  TCNCA_NOINLINE void update_mirror(A* from, int count) const {
    for (int i = 0; i < count; i += Lanes.width)
      tcnca::store<Lanes.width>(from + ring_.mask + 1 + i, tcnca::load<Lanes.width>(const_cast<A const*>(from) + i));
  }
  TCNCA_NOINLINE void copy_from_staging() const {
    for (int i = 0; i < count_; i += Lanes.width)
      ring_.store(first_ + uint32(i), 0, tcnca::load<Lanes.width>(const_cast<A const*>(destination_ + i)));
  }

  ring<A, Lanes> ring_;
  uint32 first_;
  int count_;
  bool is_staged_ = false;
  A* destination_ = nullptr;
};

}  // namespace tcnca
