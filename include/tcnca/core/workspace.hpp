// Scratch memory, the caller's.
#pragma once
#include "checked.hpp"
#include "config.hpp"

namespace tcnca {

/// Scratch memory of one call, aligned to 256 bytes, on the executor's side. Its contents before and after are of no meaning. Two calls that may
/// run at once need two.
///
/// A workspace query returns the bytes with which a call runs on all workers of the executor: the threads of cpu, the blocks of cuda. The result
/// depends on the extents, on which optional arguments are given, on numbers such as a chunk or a position, and on the executor (for cpu{0}, also
/// on the current number of OpenMP threads). It never depends on pointers or strides. It is 0 for extents that the call refuses, and the largest
/// size if the sum does not fit. A call with a smaller workspace runs on as many workers as fit in it, at least one (on the CPU, one worker needs
/// what the query returns for cpu{1}); below that it returns workspace_too_small. Results have the same bits for any number of workers.
struct workspace {
  static constexpr size_t alignment = 256;

  void* data = nullptr;
  size_t bytes = 0;
};

}  // namespace tcnca

namespace tcnca::inline TCNCA_TARGET {

/// Bytes that a call needs: `least` to run on one worker, `all` to run on all workers of the executor.
struct workspace_bytes {
  size_t least = 0, all = 0;

  /// `shared` bytes once, plus `each` bytes for every worker.
  static constexpr workspace_bytes of(size_t shared, size_t each, index_t workers) {
    return {detail::saturating_add(shared, each),
            detail::saturating_add(shared, detail::saturating_multiply(each, size_t(workers)))};
  }
};

namespace detail {
/// Bytes of a part of a workspace, rounded up to its alignment, or the largest size if they do not fit.
constexpr size_t workspace_part(size_t elements, size_t element_bytes) {
  size_t const bytes = saturating_multiply(elements, element_bytes);
  return bytes > largest<size_t> - workspace::alignment ? largest<size_t> : round_up(bytes, workspace::alignment);
}
/// What follows the first `bytes` bytes of a workspace, which is at least that large.
inline workspace workspace_after(workspace w, size_t bytes) {
  return {static_cast<char*>(w.data) + bytes, w.bytes - bytes};
}
}  // namespace detail

}  // namespace tcnca
