// Masked loads and stores: the first elements of a vector in memory.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && !defined(__CUDACC__)
inline constexpr bool has_masks = true;

/// An address for builtins whose pointer types differ between compilers.
template <class Void>
struct any_address {
  Void* p;
  template <class To>
  TCNCA_HOST_DEVICE operator To*() const {
    return static_cast<To*>(p);
  }
};

template <class E, int W>
struct masked_register {
  typedef E type __attribute__((vector_size(sizeof(E) * W)));
};

/// Copies the first n < W of W elements of Size bytes at p to `to`; the others become zero there.
template <int Size, int W>
TCNCA_HOST_DEVICE void load_masked(void* to, void const* p, int n) {
  any_address<void const> const from{p};
  unsigned const mask = (1u << n) - 1;
  if constexpr (Size == 2) {
    auto const v = __builtin_ia32_loaddquhi256_mask(from, typename masked_register<short, W>::type{}, mask & 0xffff);
    __builtin_memcpy(to, &v, sizeof(v));
  } else if constexpr (Size == 4) {
    auto const v = __builtin_ia32_loadups512_mask(from, typename masked_register<float, W>::type{}, mask & 0xffff);
    __builtin_memcpy(to, &v, sizeof(v));
  } else {
    auto const v = __builtin_ia32_loadupd512_mask(from, typename masked_register<double, W>::type{}, mask & 0xff);
    __builtin_memcpy(to, &v, sizeof(v));
  }
}
/// Copies the first n < W of W elements at `from` to p. Writes nothing else.
template <int Size, int W>
TCNCA_HOST_DEVICE void store_masked(void* p, void const* from, int n) {
  any_address<void> const to{p};
  unsigned const mask = (1u << n) - 1;
  if constexpr (Size == 2) {
    typename masked_register<short, W>::type v;
    __builtin_memcpy(&v, from, sizeof(v));
    __builtin_ia32_storedquhi256_mask(to, v, mask & 0xffff);
  } else if constexpr (Size == 4) {
    typename masked_register<float, W>::type v;
    __builtin_memcpy(&v, from, sizeof(v));
    __builtin_ia32_storeups512_mask(to, v, mask & 0xffff);
  } else {
    typename masked_register<double, W>::type v;
    __builtin_memcpy(&v, from, sizeof(v));
    __builtin_ia32_storeupd512_mask(to, v, mask & 0xff);
  }
}
#else
inline constexpr bool has_masks = false;

template <int Size, int W>
TCNCA_HOST_DEVICE void load_masked(void*, void const*, int) {}
template <int Size, int W>
TCNCA_HOST_DEVICE void store_masked(void*, void const*, int) {}
#endif

/// Whether load_masked and store_masked exist for W elements of so many bytes.
template <int Size, int W>
inline constexpr bool is_maskable = has_masks && (Size == 2 ? W == 16 : Size * W == 64);

}  // namespace tcnca::detail
