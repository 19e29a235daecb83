// A compile-time loop. Every index is a constant, so arrays indexed by it stay in registers on every compiler.
#pragma once
#include "../core/config.hpp"

namespace tcnca::inline TCNCA_TARGET {

/// An int as a type.
template <int N>
struct constant {
  static constexpr int value = N;
  TCNCA_HOST_DEVICE constexpr operator int() const { return N; }
};

/// f(constant<First>), f(constant<First + 1>), ..., f(constant<Last - 1>).
/// Eight calls per level of recursion: compilers inline a flat list much faster than a deep one.
template <int First, int Last, class F>
TCNCA_HOST_DEVICE void unroll([[maybe_unused]] F&& f) {
  constexpr int n = Last - First;
  if constexpr (n > 0) { f(constant<First>{}); }
  if constexpr (n > 1) { f(constant<First + 1>{}); }
  if constexpr (n > 2) { f(constant<First + 2>{}); }
  if constexpr (n > 3) { f(constant<First + 3>{}); }
  if constexpr (n > 4) { f(constant<First + 4>{}); }
  if constexpr (n > 5) { f(constant<First + 5>{}); }
  if constexpr (n > 6) { f(constant<First + 6>{}); }
  if constexpr (n > 7) { f(constant<First + 7>{}); }
  if constexpr (n > 8) { unroll<First + 8, Last>(f); }
}

}  // namespace tcnca
