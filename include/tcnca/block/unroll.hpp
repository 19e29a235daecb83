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
template <int First, int Last, class F>
TCNCA_HOST_DEVICE void unroll(F&& f) {
  if constexpr (Last - First == 1) {
    f(constant<First>{});
  } else if constexpr (Last > First) {
    constexpr int middle = First + (Last - First) / 2;
    unroll<First, middle>(f);
    unroll<middle, Last>(f);
  }
}

}  // namespace tcnca
