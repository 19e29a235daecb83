// Non-owning views of the caller's memory.
#pragma once
#include "checked.hpp"
#include "config.hpp"
#include "options.hpp"

namespace tcnca {

/// A non-owning strided view. Extents and strides are in elements. A default view, with a null pointer and extents of
/// 0, stands for an absent argument.
template <class T, int Rank>
struct tensor_view {
  using value_type = T;
  static constexpr int rank = Rank;

  T* data = nullptr;
  detail::array<index_t, Rank> extent = {};
  detail::array<index_t, Rank> stride = {};

  TCNCA_HOST_DEVICE constexpr T* at(index_t i) const requires(Rank == 1) { return data + i * stride[0]; }
  TCNCA_HOST_DEVICE constexpr T* at(index_t i, index_t j) const requires(Rank == 2) {
    return data + i * stride[0] + j * stride[1];
  }
  TCNCA_HOST_DEVICE constexpr T* at(index_t i, index_t j, index_t k) const requires(Rank == 3) {
    return data + i * stride[0] + j * stride[1] + k * stride[2];
  }
  TCNCA_HOST_DEVICE constexpr T* at(index_t i, index_t j, index_t k, index_t l) const requires(Rank == 4) {
    return data + i * stride[0] + j * stride[1] + k * stride[2] + l * stride[3];
  }

  /// Number of elements, or the largest index_t on overflow.
  TCNCA_HOST_DEVICE constexpr index_t count() const {
    index_t n = 1;
    for (int r = 0; r < Rank; r++) n = detail::saturating_multiply(n, extent[r]);
    return n;
  }
  /// Whether the argument is not absent. For argument checks and workspace queries.
  TCNCA_HOST_DEVICE constexpr bool given() const {
    bool any = data != nullptr;
    for (int r = 0; r < Rank; r++) any = any || extent[r] != 0;
    return any;
  }
  /// Whether the pointer is not null. For kernels: after the argument checks it tells whether there is something to
  /// access.
  TCNCA_HOST_DEVICE constexpr bool present() const { return data != nullptr; }

  /// Conversion to a view of const elements.
  template <class U>
  requires(same<U, T const> && !same<U, T>) TCNCA_HOST_DEVICE constexpr operator tensor_view<U, Rank>() const {
    tensor_view<U, Rank> v;
    v.data = data;
    for (int r = 0; r < Rank; r++) v.extent[r] = extent[r], v.stride[r] = stride[r];
    return v;
  }
};

/// A sequence is always indexed (batch, channels, length), independent of its layout in memory.
template <class T>
using sequence_view = tensor_view<T, 3>;

/// A row-major view of contiguous memory: contiguous(p, 2, 3) has strides 3 and 1. A stride that overflows becomes the
/// largest index_t, which every operation refuses.
template <class T, class... Extents>
TCNCA_HOST_DEVICE constexpr tensor_view<T, sizeof...(Extents)> contiguous(T* data, Extents... extents) {
  constexpr int rank = sizeof...(Extents);
  tensor_view<T, rank> v;
  v.data = data;
  index_t const e[] = {static_cast<index_t>(extents)...};
  index_t s = 1;
  for (int r = rank - 1; r >= 0; r--) {
    v.extent[r] = e[r];
    v.stride[r] = s;
    s = detail::saturating_multiply(s, e[r]);
  }
  return v;
}

/// A contiguous sequence in the given layout, indexed (batch, channels, length).
template <class T>
TCNCA_HOST_DEVICE constexpr sequence_view<T> sequence(T* data, layout order, index_t batch, index_t channels,
                                                      index_t length) {
  index_t const all = detail::saturating_multiply(channels, length);
  if (order == layout::batch_channels_length) return {data, {batch, channels, length}, {all, length, 1}};
  return {data, {batch, channels, length}, {all, 1, channels}};
}

}  // namespace tcnca
