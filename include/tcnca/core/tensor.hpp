// Non-owning views of the caller's memory.
#pragma once
#include "config.hpp"
#include "options.hpp"

namespace tcnca {

/// A non-owning strided view. Extents and strides are counted in elements. A default view is absent.
template <class T, int Rank>
struct tensor_view {
  using value_type = T;
  static constexpr int rank = Rank;

  T* data = nullptr;
  detail::array<index, Rank> extent = {};
  detail::array<index, Rank> stride = {};

  TCNCA_HOST_DEVICE constexpr T* at(index i) const
    requires(Rank == 1)
  {
    return data + i * stride[0];
  }
  TCNCA_HOST_DEVICE constexpr T* at(index i, index j) const
    requires(Rank == 2)
  {
    return data + i * stride[0] + j * stride[1];
  }
  TCNCA_HOST_DEVICE constexpr T* at(index i, index j, index k) const
    requires(Rank == 3)
  {
    return data + i * stride[0] + j * stride[1] + k * stride[2];
  }
  TCNCA_HOST_DEVICE constexpr T* at(index i, index j, index k, index l) const
    requires(Rank == 4)
  {
    return data + i * stride[0] + j * stride[1] + k * stride[2] + l * stride[3];
  }

  /// Number of elements.
  TCNCA_HOST_DEVICE constexpr index count() const {
    index n = 1;
    for (int r = 0; r < Rank; r++) n *= extent[r];
    return n;
  }
  /// An optional argument is given by a view with a pointer, and left out by a default view.
  TCNCA_HOST_DEVICE constexpr bool present() const { return data != nullptr; }

  /// A view of mutable elements is a view of const ones.
  template <class U>
    requires(same<U, T const> && !same<U, T>)
  TCNCA_HOST_DEVICE constexpr operator tensor_view<U, Rank>() const {
    tensor_view<U, Rank> v;
    v.data = data;
    for (int r = 0; r < Rank; r++) v.extent[r] = extent[r], v.stride[r] = stride[r];
    return v;
  }
};

/// A sequence is always indexed (batch, channels, length), whatever its order in memory.
template <class T>
using sequence_view = tensor_view<T, 3>;

/// A row-major view of contiguous memory: contiguous(p, 2, 3) has strides 3 and 1.
template <class T, class... Extents>
TCNCA_HOST_DEVICE constexpr tensor_view<T, sizeof...(Extents)> contiguous(T* data, Extents... extents) {
  constexpr int rank = sizeof...(Extents);
  tensor_view<T, rank> v;
  v.data = data;
  index const e[] = {static_cast<index>(extents)...};
  index s = 1;
  for (int r = rank - 1; r >= 0; r--) {
    v.extent[r] = e[r];
    v.stride[r] = s;
    s *= e[r];
  }
  return v;
}

/// A contiguous sequence in the given layout, indexed (batch, channels, length).
template <class T>
TCNCA_HOST_DEVICE constexpr sequence_view<T> sequence(T* data, layout order, index batch, index channels, index length) {
  if (order == layout::batch_channels_length) return {data, {batch, channels, length}, {channels * length, length, 1}};
  return {data, {batch, channels, length}, {channels * length, 1, channels}};
}

}  // namespace tcnca
