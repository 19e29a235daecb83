// Layout of a group's memory: which buffer lies where.
#pragma once
#include "lanes.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Location of a buffer, in elements from the beginning of the group's shared memory or global scratch.
struct memory_place {
  size_t offset = 0;
  uint32 mask = 0;  // of a ring: its positions - 1
  bool global_scratch = false;
};

/// Places buffers: each in shared memory if it still fits, else in global scratch. Every buffer starts on a 64-byte
/// boundary.
template <class A>
struct memory_planner {
  size_t shared_memory_limit;                    // bytes
  size_t shared_memory = 0, global_scratch = 0;  // elements used

  constexpr memory_place place(size_t elements) {
    constexpr size_t line = 64 / sizeof(A);
    elements = round_up(elements, line);
    bool const fits = (shared_memory + elements) * sizeof(A) <= shared_memory_limit;
    size_t& used = fits ? shared_memory : global_scratch;
    memory_place const result{.offset = used, .global_scratch = !fits};
    used += elements;
    return result;
  }
  /// A ring of at least `positions`, rounded up to a power of two.
  template <lanes Lanes>
  constexpr memory_place place_ring(index_t positions) {
    index_t const n = power_of_two(max_of(positions, index_t(max_of(4 * Lanes.width, 2 * Lanes.overrun))));
    memory_place result = place(ring_elements<Lanes>(n));
    result.offset += size_t(Lanes.mirror_before());
    result.mask = uint32(n - 1);
    return result;
  }
};

}  // namespace tcnca
