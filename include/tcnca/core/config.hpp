// What every header needs: the function annotation and the integer types, with or without a standard library (NVRTC has none).
#pragma once

#if defined(__CUDACC__)
#define TCNCA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TCNCA_HOST_DEVICE inline __attribute__((always_inline))
#endif

/// A function off the hot path: on the CPU it stays a call, which keeps the hot path small and quick to compile.
#if defined(__CUDACC__)
#define TCNCA_RARE TCNCA_HOST_DEVICE
#else
#define TCNCA_RARE inline __attribute__((noinline, visibility("hidden")))
#endif

/// On a lambda in a hot loop: GCC leaves large ones as calls otherwise, and their captures in memory.
#if defined(__CUDACC__)
#define TCNCA_INLINE
#else
#define TCNCA_INLINE __attribute__((always_inline))
#endif

/// Before a loop over the lanes of a pack: on a GPU unrolled, so that the lanes stay in registers.
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
#define TCNCA_UNROLL _Pragma("unroll")
#else
#define TCNCA_UNROLL
#endif

/// Functions that name a kernel are hidden, so that two shared libraries built for different architectures keep their own kernels.
#define TCNCA_HIDDEN __attribute__((visibility("hidden")))

#if defined(__CUDACC_RTC__)
namespace tcnca {
using uint8 = unsigned char;
using uint16 = unsigned short;
using uint32 = unsigned int;
using uint64 = unsigned long long;
using index = long long;
using size = unsigned long long;
}  // namespace tcnca
#else
#include <cstddef>
#include <cstdint>
namespace tcnca {
using uint8 = std::uint8_t;
using uint16 = std::uint16_t;
using uint32 = std::uint32_t;
using uint64 = std::uint64_t;
/// Extents, strides and positions: signed and 64 bits everywhere, so that a sequence may pass 2^31 elements.
using index = std::int64_t;
using size = std::size_t;
}  // namespace tcnca
#endif

namespace tcnca {

/// Whether two types are the same.
template <class A, class B>
inline constexpr bool same = false;
template <class A>
inline constexpr bool same<A, A> = true;

template <class T>
TCNCA_HOST_DEVICE constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
TCNCA_HOST_DEVICE constexpr T max(T a, T b) {
  return a < b ? b : a;
}
/// Quotient rounded up; a >= 0, b > 0.
template <class T>
TCNCA_HOST_DEVICE constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}
/// The least multiple of b that is not below a; a >= 0, b > 0.
template <class T>
TCNCA_HOST_DEVICE constexpr T round_up(T a, T b) {
  return divide_up(a, b) * b;
}
/// The least power of two that is not below a.
TCNCA_HOST_DEVICE constexpr index power_of_two(index a) {
  index p = 1;
  while (p < a) p *= 2;
  return p;
}

}  // namespace tcnca
