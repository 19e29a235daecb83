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
  /// Absolute position of the first token of all sequences, if there are no slots.
  index_t position = 0;
  /// [batch], in host memory. Sequence b has the state in slot slots[b], and its first token has the position
  /// positions[b]. At position 0 the slot's old content is ignored. Null: slot b, and `position`.
  int const* slots = nullptr;
  index_t const* positions = nullptr;
};

/// The sequences of one call of an operation: neighbours in the batch with neighbouring states.
struct sequence_group {
  index_t first, count;  ///< the sequences
  index_t slot;          ///< of the first
  index_t position;      ///< of the first token of each
  bool fresh;            ///< the state before the call is zero and need not be read
};

/// The group's part of a view whose first axis is the batch.
template <class View>
View group_of(View view, sequence_group const& g) {
  view.data += g.first * view.stride[0], view.extent[0] = g.count;
  return view;
}

/// Reserves the workspace of `each_group` for a batch and length like those of the context. args(group) returns the
/// arguments of Op::forward.
template <class Op, class T, class E>
void reserve_pieces(context<T, E>& c, auto const& args) {
  c.reserve(Op::forward_workspace(c.executor(), args(sequence_group{0, c.batch, 0, 0, false})));
  if constexpr (same<E, cpu>) {
    c.reserve_for_each_thread(Op::forward_workspace(cpu{1}, args(sequence_group{0, 1, 0, 0, false})));
  }
}

/// Calls f(executor, group, workspace), which returns a status, for groups that together are the batch. Sequences in
/// slots are called one at a time, because a call of an operation has one position; the CPU's threads share them.
template <class T, class E, class F>
void each_group(context<T, E> const& c, passage<T, E> const& at, F const& f) {
  if (at.slots == nullptr)
    return require(f(c.executor(), sequence_group{0, c.batch, 0, at.position, false}, c.scratch()));
  auto const group = [&at](index_t b) {
    return sequence_group{b, 1, at.slots[b], at.positions[b], at.positions[b] == 0};
  };
  if constexpr (same<E, cpu>) {
    if (c.batch > 1) {
      bool failed = false;
#pragma omp parallel for num_threads(c.threads) schedule(static) reduction(|| : failed) if (c.threads > 1)
      for (index_t t = 0; t < c.threads; t++)
        for (index_t b = t * c.batch / c.threads; b < (t + 1) * c.batch / c.threads; b++)
          failed = failed || !f(cpu{1}, group(b), c.scratch_of(t)).ok();
      if (failed) throw std::logic_error("an operation refused the state of a slot");
      return;
    }
  }
  for (index_t b = 0; b < c.batch; b++) require(f(c.executor(), group(b), c.scratch()));
}

}  // namespace tcnca::models
