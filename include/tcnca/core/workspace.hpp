// Scratch memory, the caller's.
#pragma once
#include "checked.hpp"
#include "config.hpp"

namespace tcnca {

/// Scratch memory of one call, aligned to 256 bytes, on the executor's side. Its contents before and after are of no meaning. Two calls that may
/// run at once need two.
///
/// A workspace query answers with how many bytes a call runs on all workers of the executor: the threads of cpu, the blocks of cuda. It depends on
/// the extents, on which optional arguments are given, on numbers such as a chunk or a position, and on the executor, with cpu{0} also on how many
/// threads OpenMP gives at that moment; never on pointers or strides. It answers 0 for extents that the call refuses, and the largest size where
/// the sum does not fit. A call with less, down to what one worker needs (on the CPU the answer for cpu{1}), runs on as many workers as fit; below
/// that it answers workspace_too_small. Results are the same bits for any number of workers.
struct workspace {
  static constexpr size_t alignment = 256;

  void* data = nullptr;
  size_t bytes = 0;
};

}  // namespace tcnca

namespace tcnca::inline TCNCA_TARGET {

/// What a call asks of its workspace: `least` for one worker, `all` for as many as the executor has.
struct workspace_bytes {
  size_t least = 0, all = 0;

  /// `shared` bytes, and `each` for every worker.
  static constexpr workspace_bytes of(size_t shared, size_t each, index_t workers) {
    return {detail::saturating_add(shared, each), detail::saturating_add(shared, detail::saturating_multiply(each, size_t(workers)))};
  }
};

namespace detail {
/// Bytes of a part of a workspace, whole units of its alignment; the largest size where that does not fit.
constexpr size_t workspace_part(size_t elements, size_t element_bytes) {
  size_t const bytes = saturating_multiply(elements, element_bytes);
  return bytes > largest<size_t> - workspace::alignment ? largest<size_t> : round_up(bytes, workspace::alignment);
}
}  // namespace detail

}  // namespace tcnca
