// The first elements of a vector in memory, in the accumulate type.
#pragma once
#include "../../arch/partial_vector.hpp"
#include "../../block/pack.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

/// The first n <= W of W elements at p; the other lanes are zero.
template <int W, class T>
TCNCA_HOST_DEVICE pack<accumulate_t<T>, W> load_partial(T const* p, index_t n) {
  if constexpr (is_maskable<int(sizeof(T)), W>) {
    array<T, W> elements;
    load_masked<int(sizeof(T)), W>(elements, p, int(n));
    return load<W>(elements);
  } else {
    return load_some<W>(p, 1, n);
  }
}

/// Writes the first n <= W of W lanes.
template <int W, class T>
TCNCA_HOST_DEVICE void store_partial(T* p, index_t n, pack<accumulate_t<T>, W> v) {
  if constexpr (is_maskable<int(sizeof(T)), W>) {
    array<T, W> elements;
    store<W>(elements, v);
    store_masked<int(sizeof(T)), W>(p, elements, int(n));
  } else {
    store_some<W>(p, 1, n, v);
  }
}

}  // namespace tcnca::detail
