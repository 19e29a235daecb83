// A group's memory, near and far, handed out to its buffers.
#pragma once
#include "lanes.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Where a buffer lies: in elements from the beginning of the group's near (fast) or far (workspace) memory.
struct memory_place {
  size_t offset = 0;
  uint32 mask = 0;  // of a ring: its positions - 1
  bool global_scratch = false;
};

/// Hands out a group's memory, near while it lasts. Every buffer starts on 64 bytes.
template <class A>
struct memory_planner {
  size_t near_limit;
  size_t shared_memory = 0, global_scratch = 0;

  constexpr memory_place place(size_t elements) {
    constexpr size_t line = 64 / sizeof(A);
    elements = round_up(elements, line);
    bool const fits = (shared_memory + elements) * sizeof(A) <= near_limit;
    size_t& used = fits ? shared_memory : global_scratch;
    memory_place const at{used, 0, !fits};
    used += elements;
    return at;
  }
  template <lanes Lanes>
  constexpr memory_place place_ring(index_t positions) {
    index_t const n = power_of_two(max_of(positions, index_t(max_of(4 * Lanes.width, 2 * Lanes.margin))));
    memory_place at = place(ring_elements<Lanes>(n));
    at.offset += Lanes.front();
    at.mask = uint32(n - 1);
    return at;
  }
};

}  // namespace tcnca
