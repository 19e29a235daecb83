// Layout of a group's memory: which buffer lies where.
#pragma once
#include "lanes.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// The memory that holds a buffer. If it is known at compile time, each access to the buffer is an instruction of one
/// address space.
enum class memory_space { shared, global };

/// Location of a buffer, in elements from the beginning of the group's shared memory or global scratch.
struct memory_place {
  size_t offset = 0;
  uint32 mask = 0;  // of a ring: its positions - 1
  bool global_scratch = false;
};

/// Places buffers one after another. Every buffer starts on a 64-byte boundary.
template <class A>
struct memory_planner {
  static constexpr size_t line = 64 / sizeof(A);
  size_t shared_memory_limit = 0;                // bytes
  size_t shared_memory = 0, global_scratch = 0;  // elements used

  constexpr memory_place place(memory_space space, size_t elements) {
    bool const global = space == memory_space::global;
    size_t& used = global ? global_scratch : shared_memory;
    memory_place const result{.offset = used, .global_scratch = global};
    used += round_up(elements, line);
    return result;
  }
  /// In shared memory if the buffer still fits, else in global scratch.
  constexpr memory_place place(size_t elements) {
    bool const fits = (shared_memory + round_up(elements, line)) * sizeof(A) <= shared_memory_limit;
    return place(fits ? memory_space::shared : memory_space::global, elements);
  }
  /// A ring of at least `positions`, rounded up to a power of two.
  template <lanes Lanes>
  constexpr memory_place place_ring(memory_space space, index_t positions) {
    index_t const n = power_of_two(max_of(positions, index_t(max_of(4 * Lanes.width, 2 * Lanes.overrun))));
    memory_place result = place(space, ring_elements<Lanes>(n));
    result.offset += size_t(Lanes.mirror_before());
    result.mask = uint32(n - 1);
    return result;
  }
};

}  // namespace tcnca
