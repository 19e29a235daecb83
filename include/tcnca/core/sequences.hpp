// The sequences of a call: rows of a batch or packed one after another, and the state and the position of each.
#pragma once
#include "tensor.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Where one sequence of a call is.
struct sequence_place {
  index_t number = 0;    // in the call
  index_t batch = 0;     // its row of the tensors with a batch axis
  index_t begin = 0;     // its first position on the sequence axis
  index_t length = 0;    // its positions
  index_t slot = 0;      // its row of the states; negative: it has no state
  index_t position = 0;  // absolute position of its first sample
};

/// The optional arguments `offsets`, `max_length`, `slots`, `positions` and `position` of a call, see
/// conv_stack_forward_args. Their elements are in the executor's memory.
struct sequence_table {
  tensor_view<int32 const, 1> offsets = {};      ///< packed sequences; absent: a sequence is a row of the batch
  tensor_view<int32 const, 1> slots = {};        ///< absent: sequence s has row s of the states
  tensor_view<index_t const, 1> positions = {};  ///< absent: `position` for all sequences
  index_t position = 0;
  index_t count = 0;       ///< sequences
  index_t max_length = 0;  ///< no sequence is longer

  /// The table of a call whose tensors have these extents of their batch and sequence axes.
  template <class Args>
  static constexpr sequence_table of(Args const& a, index_t batch, index_t length) {
    sequence_table t{.offsets = a.offsets, .slots = a.slots};
    if constexpr (requires { a.positions; }) { t.positions = a.positions, t.position = a.position; }
    t.count = a.offsets.given() ? max_of(index_t(1), a.offsets.extent[0]) - 1 : batch;
    t.max_length = a.offsets.given() && a.max_length > 0 ? min_of(a.max_length, length) : length;
    return t;
  }

  /// Whether sequences are more than rows of a batch. For argument checks and workspace queries.
  constexpr bool given() const { return offsets.given() || slots.given() || positions.given(); }
  /// Rows that a tensor of states must have.
  template <class T, int Rank>
  constexpr index_t state_rows(tensor_view<T, Rank> const& state) const {
    return slots.given() ? state.extent[0] : count;
  }
  /// Reduces tensors of the call to one sequence of the greatest length: such a call needs as many items and as much
  /// memory as any of the sequences.
  template <class... View>
  constexpr void cut_to_longest(View&... views) const {
    auto const cut = [this](auto& v) {
      if (v.given()) v.extent[0] = 1, v.extent[2] = max_length;
    };
    (cut(views), ...);
  }

  TCNCA_HOST_DEVICE constexpr sequence_place operator[](index_t s) const {
    sequence_place p{.number = s, .batch = s, .length = max_length, .slot = s, .position = position};
    if (offsets.present()) {
      p.batch = 0, p.begin = *offsets.at(s);
      p.length = max_of(index_t(0), min_of(index_t(*offsets.at(s + 1)) - p.begin, max_length));
    }
    if (slots.present()) p.slot = *slots.at(s);
    if (positions.present()) p.position = *positions.at(s);
    return p;
  }
};

/// The part of a tensor that belongs to a sequence: one row of the batch, `length` positions of the sequence axis.
template <class T, int Rank>
TCNCA_HOST_DEVICE constexpr tensor_view<T, Rank> sequence_part(tensor_view<T, Rank> v, int axis,
                                                               sequence_place const& s) {
  if (v.present()) v.data += s.batch * v.stride[0] + s.begin * v.stride[axis];
  v.extent[0] = 1, v.extent[axis] = s.length;
  return v;
}
/// The row of a tensor of states that belongs to a sequence; absent if it has no state.
template <class T, int Rank>
TCNCA_HOST_DEVICE constexpr tensor_view<T, Rank> sequence_state(tensor_view<T, Rank> v, sequence_place const& s) {
  if (v.present()) v.data = s.slot < 0 ? nullptr : v.data + s.slot * v.stride[0];
  v.extent[0] = 1;
  return v;
}
/// The row of a tensor with one row for each sequence.
template <class T, int Rank>
TCNCA_HOST_DEVICE constexpr tensor_view<T, Rank> sequence_row(tensor_view<T, Rank> v, sequence_place const& s) {
  if (v.present()) v.data += s.number * v.stride[0];
  v.extent[0] = 1;
  return v;
}

}  // namespace tcnca
