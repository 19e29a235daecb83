// Whether a tensor may be accessed a whole pack at a time.
#pragma once
#include "../core/tensor.hpp"
#include "executor_traits.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// A CPU loads packs from anywhere; a GPU wants them aligned to their size. `items` is how many neighbours are accessed at once.
template <class Executor, class T>
bool is_vectorizable(sequence_view<T> const& v, layout order, index_t items) {
  if constexpr (executor_traits<Executor>::target.compute_capability == 0) {
    return true;
  } else {
    int const other = order == layout::batch_channels_length ? 1 : 2;
    return reinterpret_cast<std::uintptr_t>(v.data) % (size_t(items) * sizeof(T)) == 0 && v.stride[0] % items == 0 &&
           v.stride[other] % items == 0;
  }
}

/// Whether all rows of a tensor, whose last axis is contiguous, are aligned to `items` elements; absent ones are.
template <class T, int Rank>
bool aligned_rows(index_t items, tensor_view<T, Rank> const& v) {
  bool aligned = reinterpret_cast<std::uintptr_t>(v.data) % (size_t(items) * sizeof(T)) == 0;
  for (int r = 0; r + 1 < Rank; r++) aligned = aligned && v.stride[r] % items == 0;
  return aligned;
}
/// The same as is_vectorizable for such tensors.
template <class Executor, class... T, int Rank>
bool rows_vectorizable(index_t items, tensor_view<T, Rank> const&... v) {
  return executor_traits<Executor>::target.compute_capability == 0 || (aligned_rows(items, v) && ...);
}

}  // namespace tcnca
