// What is done to a block in registers besides its sums.
#pragma once
#include "../../block/activation.hpp"
#include "../../block/lanes.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

template <class A, int W, size_t N>
TCNCA_HOST_DEVICE void copy_block(pack<A, W> (&to)[N], pack<A, W> const (&from)[N]) {
  unroll<0, int(N)>([&](auto u) TCNCA_INLINE { to[u] = from[u]; });
}

/// f(v), for a function that is not inlined: works on a copy, because a block whose address is passed on is kept in
/// memory.
template <class A, int W, size_t N, class F>
TCNCA_HOST_DEVICE void with_copy(pack<A, W> (&v)[N], F f) {
  pack<A, W> copy[N];
  copy_block(copy, v);
  f(copy);
  copy_block(v, copy);
}

template <class A, int W, size_t N>
TCNCA_HOST_DEVICE void store_block(A* to, pack<A, W> const (&v)[N]) {
  unroll<0, int(N)>([&](auto u) TCNCA_INLINE { store<W>(to + u * W, v[u]); });
}

/// Sets the positions of a block that starts at position t to zero that lie outside of the sequence.
template <lanes Lanes, class A, int W, size_t N>
TCNCA_NOINLINE void clear_outside(pack<A, W> (&v)[N], index_t t, index_t length) {
  constexpr index_t P = Lanes.positions();
  for (int u = 0; u < int(N); u++) {
    index_t const at = t + u * P;
    if (at >= 0 && at + P <= length) continue;
    for (int i = 0; i < W; i++) {
      index_t const position = Lanes.along_length ? at + i : at;
      if (position < 0 || position >= length) v[u].set_lane(i, A(0));
    }
  }
}

template <activation Act, class A, int W, size_t N>
TCNCA_NOINLINE void activate_in_memory(pack<A, W> (&v)[N]) {
  unroll<0, int(N)>([&](auto u) TCNCA_INLINE { v[u] = activate<Act>(v[u]).value; });
}
/// Activations with long code are in a function of their own.
template <activation Act, class A, int W, size_t N>
TCNCA_HOST_DEVICE void activate_block(pack<A, W> (&v)[N]) {
  if constexpr (Act == activation::none || Act == activation::relu) {
    unroll<0, int(N)>([&](auto u) TCNCA_INLINE { v[u] = activate<Act>(v[u]).value; });
  } else {
    with_copy(v, [](pack<A, W>(&copy)[N]) { activate_in_memory<Act>(copy); });
  }
}

}  // namespace tcnca::detail
