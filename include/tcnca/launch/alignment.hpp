// Whether a tensor may be accessed with vector loads and stores.
#pragma once
#include "../core/tensor.hpp"
#include "executor_traits.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// Whether all vectors of `items` consecutive elements of a sequence are aligned to their size. Always true on the CPU,
/// which accesses vectors at any address.
template <class Executor, class T>
bool is_vectorizable(sequence_view<T> const& v, layout order, index_t items) {
  if constexpr (executor_traits<Executor>::target.is_cpu()) {
    return true;
  } else {
    int const other = order == layout::batch_channels_length ? 1 : 2;
    return reinterpret_cast<std::uintptr_t>(v.data) % (size_t(items) * sizeof(T)) == 0 && v.stride[0] % items == 0 &&
           v.stride[other] % items == 0;
  }
}

/// Whether all rows of a tensor, whose last axis is contiguous, are aligned to `items` elements. True for an absent
/// tensor.
template <class T, int Rank>
bool aligned_rows(index_t items, tensor_view<T, Rank> const& v) {
  bool aligned = reinterpret_cast<std::uintptr_t>(v.data) % (size_t(items) * sizeof(T)) == 0;
  for (int r = 0; r + 1 < Rank; r++) aligned = aligned && v.stride[r] % items == 0;
  return aligned;
}
/// is_vectorizable for such tensors.
template <class Executor, class... T, int Rank>
bool rows_vectorizable(index_t items, tensor_view<T, Rank> const&... v) {
  return executor_traits<Executor>::target.is_cpu() || (aligned_rows(items, v) && ...);
}

}  // namespace tcnca
