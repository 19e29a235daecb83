// A ring of the newest samples of a sequence, in fast memory, indexed by position.
#pragma once
#include "lanes.hpp"
#include "pack.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A ring of mask + 1 positions (a power of two, at least 4 widths and 2 margins). Positions count modulo 2^32, so negative ones are valid.
/// base points front() elements into memory of front() + (mask + 1) * channels() + back() elements.
template <class A, lanes Lanes>
struct ring {
  using value = pack<A, Lanes.width>;

  A* base;
  uint32 mask;

  TCNCA_HOST_DEVICE A* at(uint32 position, int p) const {
    return base + size_t(position & mask) * size_t(Lanes.channels()) + p * Lanes.width;
  }
  /// Pack p at the position (for lanes along the length: the positions from there on).
  TCNCA_HOST_DEVICE value load(uint32 position, int p) const {
    return tcnca::load<Lanes.width>(const_cast<A const*>(at(position, p)));
  }

  TCNCA_HOST_DEVICE void store(uint32 position, int p, value v) const {
    A* const to = at(position, p);
    tcnca::store<Lanes.width>(to, v);
    if constexpr (Lanes.front() > 0) {  // keep the copies at both ends
      uint32 const slot = position & mask;
      if (slot < Lanes.margin) tcnca::store<Lanes.width>(to + (mask + 1), v);
      if (slot + Lanes.width > mask + 1) tcnca::store<Lanes.width>(to - (mask + 1), v);
    }
  }

  /// One sample of channel c (of those a position holds).
  TCNCA_HOST_DEVICE void store_sample(uint32 position, int c, A v) const {
    uint32 const slot = position & mask;
    base[size_t(slot) * size_t(Lanes.channels()) + size_t(c)] = v;
    if constexpr (Lanes.front() > 0) {
      if (slot < Lanes.margin) base[size_t(slot) + mask + 1] = v;
    }
  }
  TCNCA_HOST_DEVICE A load_sample(uint32 position, int c) const {
    return base[size_t(position & mask) * size_t(Lanes.channels()) + size_t(c)];
  }
};

/// Writes the packs of one tile, positions [first, first + count), into a ring. On the CPU by plain stores, for a choice or a mask at every
/// pack costs as much as its sums: the copies at the ring's ends are made once, by finish(), and a tile that runs over the end waits in
/// `spare`, memory for whole packs of the longest tile.
template <class A, lanes Lanes>
class tile_writer {
 public:
  using value = pack<A, Lanes.width>;

  TCNCA_HOST_DEVICE tile_writer(ring<A, Lanes> r, index_t first, index_t count, [[maybe_unused]] A* spare)
      : ring_(r), first_(uint32(first)), count_(int(count)) {
    if constexpr (Lanes.front() > 0) {
      waits_ = (first_ & r.mask) + uint32(round_up(count_, Lanes.width)) > r.mask + 1;
      plain_ = waits_ ? spare : r.at(first_, 0);
    }
  }
  TCNCA_HOST_DEVICE void store(int offset, int p, value v) const {
    if constexpr (Lanes.front() > 0) {
      tcnca::store<Lanes.width>(plain_ + offset, v);
    } else {
      ring_.store(first_ + uint32(offset), p, v);
    }
  }
  TCNCA_HOST_DEVICE void finish() const {
    if constexpr (Lanes.front() > 0) {
      uint32 const first = first_ & ring_.mask;
      if (waits_) unpack();
      else if (first < Lanes.margin) copy(ring_.at(0, 0) + first, min_of(count_, int(Lanes.margin - first)));
    }
  }

 private:
  TCNCA_NOINLINE void copy(A* from, int count) const {
    for (int i = 0; i < count; i += Lanes.width)
      tcnca::store<Lanes.width>(from + ring_.mask + 1 + i, tcnca::load<Lanes.width>(const_cast<A const*>(from) + i));
  }
  TCNCA_NOINLINE void unpack() const {
    for (int i = 0; i < count_; i += Lanes.width)
      ring_.store(first_ + uint32(i), 0, tcnca::load<Lanes.width>(const_cast<A const*>(plain_ + i)));
  }

  ring<A, Lanes> ring_;
  uint32 first_;
  int count_;
  bool waits_ = false;
  A* plain_ = nullptr;
};

}  // namespace tcnca
