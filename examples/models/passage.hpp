// Where the sequences of a forward call begin, and where their states are.
#pragma once
#include "memory.hpp"

namespace tcnca::models {

/// A pool in the executor's memory.
template <class T, class E>
using memory_of = decltype(context<T, E>::kept);

template <class T, class E>
struct passage {
  /// Null: the sequences begin with the call, and no state is written. Otherwise the call reads and updates the states.
  memory_of<T, E> const* states = nullptr;
  index_t state_rows = 0;  ///< sequences that have states
  index_t position = 0;    ///< absolute position of the first token of all sequences, if there are no slots
  /// [sequences], in the executor's memory. Sequence s has the state in slot slots[s], and its first token has the
  /// position positions[s]. Absent: slot s, and `position`.
  tensor_view<int32 const, 1> slots = {};
  tensor_view<index_t const, 1> positions = {};
};

}  // namespace tcnca::models
