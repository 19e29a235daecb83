// Scratch memory, provided by the caller.
#pragma once
#include "checked.hpp"
#include "config.hpp"

namespace tcnca {

/// Scratch memory of one call, aligned to 64 bytes; device memory for cuda. Its contents need no initialization and
/// are undefined after the call. Calls that may run concurrently need separate workspaces.
///
/// A workspace query returns the bytes with which a call runs on all workers of the executor: the threads of cpu, the
/// blocks of cuda. The result depends on the extents, on which optional arguments are present, on scalar arguments such
/// as a chunk or a position, and on the executor (for cpu{0}, also on the current number of OpenMP threads). It does
/// not depend on pointers or strides. It is 0 for extents that the call refuses, and the largest size_t on overflow.
/// With a smaller workspace a call uses as many workers as fit, at least one (on the CPU, one worker needs what the
/// query returns for cpu{1}); below that it returns workspace_too_small. Results have the same bits for any number of
/// workers.
struct workspace {
  static constexpr size_t alignment = 64;

  void* data = nullptr;
  size_t bytes = 0;
};

}  // namespace tcnca

namespace tcnca::inline TCNCA_TARGET {

/// Bytes of workspace of a call: `least` for one worker, `all` for all workers of the executor.
struct workspace_bytes {
  size_t least = 0, all = 0;

  /// `shared` bytes for the call and `each` bytes for every worker.
  static constexpr workspace_bytes of(size_t shared, size_t each, index_t workers) {
    return {detail::saturating_add(shared, each),
            detail::saturating_add(shared, detail::saturating_multiply(each, size_t(workers)))};
  }
};

namespace detail {
/// Parts of a workspace are multiples of this many bytes, so that they share no line of a cache.
inline constexpr size_t workspace_granularity = 256;
/// Bytes of a part of a workspace, rounded up to the granularity; the largest size_t on overflow.
constexpr size_t workspace_part(size_t elements, size_t element_bytes) {
  size_t const bytes = saturating_multiply(elements, element_bytes);
  return bytes > largest<size_t> - workspace_granularity ? largest<size_t> : round_up(bytes, workspace_granularity);
}
/// What follows the first `bytes` bytes of a workspace, which is at least that large.
inline workspace workspace_after(workspace w, size_t bytes) {
  return {static_cast<char*>(w.data) + bytes, w.bytes - bytes};
}
}  // namespace detail

}  // namespace tcnca
