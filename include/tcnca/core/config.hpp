// Function annotations, integer types and the inline namespace: included by every header. Works without a standard
// library, because NVRTC has none.
#pragma once

#if __cplusplus < 202002L
#error "tcnca needs C++20: compile with -std=c++20 or later"
// No such file: a missing include stops the compiler before it prints thousands of follow-up errors.
#include <tcnca needs C++20>
#endif

#if defined(__CUDACC__)
#define TCNCA_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define TCNCA_HOST_DEVICE inline __attribute__((always_inline))
#endif

/// For functions called once per tile or less. On the CPU a call keeps their code and registers apart from the caller's
/// and compilation fast; on a GPU they are inlined.
#if defined(__CUDACC__)
#define TCNCA_NOINLINE TCNCA_HOST_DEVICE
#else
#define TCNCA_NOINLINE inline __attribute__((noinline, visibility("hidden")))
#endif

/// For lambdas in hot loops. GCC may otherwise not inline large ones and keep their captures in memory.
#if defined(__CUDACC__)
#define TCNCA_INLINE
#else
#define TCNCA_INLINE __attribute__((always_inline))
#endif

/// Before a loop over the lanes of a pack. On a GPU the loop is unrolled, so that the lanes stay in registers.
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
#define TCNCA_UNROLL _Pragma("unroll")
#else
#define TCNCA_UNROLL
#endif

/// For functions that refer to a kernel. Hidden visibility: two shared libraries built for different architectures each
/// keep their own kernels. A tuning or a policy may have internal linkage: nvcc's warning about it is suppressed.
#if defined(__CUDACC_RTC__)
#define TCNCA_HIDDEN
#elif defined(__NVCC__)
#define TCNCA_HIDDEN                                                                                   \
  _Pragma("nv_diagnostic push") _Pragma("nv_diag_suppress 1407") __attribute__((visibility("hidden"))) \
  _Pragma("nv_diagnostic pop")
#else
#define TCNCA_HIDDEN __attribute__((visibility("hidden")))
#endif

/// The inline namespace of all code whose behaviour or instructions depend on the compiler's flags. Files of one
/// program that are compiled with different flags then have separate instantiations; with one name the linker would
/// pick one of them for all files. Types that such files exchange (views, status, executors, options, element types,
/// shapes) are outside of this namespace.
#if defined(__AVX512BF16__) && defined(__AVX512FP16__)
#define TCNCA_TARGET avx512_fp16::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX512BF16__) && defined(__AVX512VBMI__)
#define TCNCA_TARGET avx512_bf16::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX512BF16__)
#define TCNCA_TARGET avx512_bf16_without_vbmi::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX512VBMI__)
#define TCNCA_TARGET avx512_vbmi::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX512F__) && defined(__AVX512VL__)
#define TCNCA_TARGET avx512::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX512F__)
#define TCNCA_TARGET avx512_without_vl::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX2__) && defined(__FMA__) && defined(__BMI2__)
#define TCNCA_TARGET avx2::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX2__) && defined(__FMA__)
#define TCNCA_TARGET avx2_without_bmi::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX2__)
#define TCNCA_TARGET avx2_without_fma::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX__) && defined(__FMA__)
#define TCNCA_TARGET avx_fma::inline TCNCA_TARGET_OPTIONS
#elif defined(__AVX__)
#define TCNCA_TARGET avx::inline TCNCA_TARGET_OPTIONS
#elif defined(__SSE4_2__)
#define TCNCA_TARGET sse4::inline TCNCA_TARGET_OPTIONS
#elif defined(__SSE3__)
#define TCNCA_TARGET sse3::inline TCNCA_TARGET_OPTIONS
#elif defined(__ARM_FEATURE_SVE)
#define TCNCA_TARGET sve::inline TCNCA_TARGET_OPTIONS
#else
#define TCNCA_TARGET baseline::inline TCNCA_TARGET_OPTIONS
#endif

/// The second part of the name: OpenMP, fast math, nvcc. It is part of kernel names, so nvcc's host and device passes
/// must agree on it.
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__) || defined(__RECIPROCAL_MATH__) || \
    defined(__NO_SIGNED_ZEROS__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#if defined(__CUDACC__) && defined(_OPENMP)
#define TCNCA_TARGET_OPTIONS cuda_openmp_fast_math
#elif defined(__CUDACC__)
#define TCNCA_TARGET_OPTIONS cuda_fast_math
#elif defined(_OPENMP)
#define TCNCA_TARGET_OPTIONS openmp_fast_math
#else
#define TCNCA_TARGET_OPTIONS fast_math
#endif
#elif defined(__CUDACC__) && defined(_OPENMP)
#define TCNCA_TARGET_OPTIONS cuda_openmp
#elif defined(__CUDACC__)
#define TCNCA_TARGET_OPTIONS cuda_only
#elif defined(_OPENMP)
#define TCNCA_TARGET_OPTIONS openmp
#else
#define TCNCA_TARGET_OPTIONS one_thread
#endif

#if defined(__CUDACC_RTC__)
namespace tcnca {
using uint8 = unsigned char;
using uint16 = unsigned short;
using int32 = int;
using uint32 = unsigned int;
using uint64 = unsigned long long;
using index_t = long long;
using size_t = unsigned long long;
}  // namespace tcnca
#else
#include <cstddef>
#include <cstdint>
namespace tcnca {
using uint8 = std::uint8_t;
using uint16 = std::uint16_t;
using int32 = std::int32_t;
using uint32 = std::uint32_t;
using uint64 = std::uint64_t;
/// Extents, strides and positions. 64 bits, so that a tensor may have more than 2^31 elements.
using index_t = std::int64_t;
using std::size_t;
}  // namespace tcnca
#endif

namespace tcnca {

/// Whether two types are the same.
template <class A, class B>
inline constexpr bool same = false;
template <class A>
inline constexpr bool same<A, A> = true;

template <class T>
TCNCA_HOST_DEVICE constexpr T min_of(T a, T b) {
  return b < a ? b : a;
}
template <class T>
TCNCA_HOST_DEVICE constexpr T max_of(T a, T b) {
  return a < b ? b : a;
}
/// Quotient rounded up; a >= 0, b > 0.
template <class T>
TCNCA_HOST_DEVICE constexpr T divide_up(T a, T b) {
  return (a + b - 1) / b;
}
/// a rounded up to a multiple of b; a >= 0, b > 0.
template <class T>
TCNCA_HOST_DEVICE constexpr T round_up(T a, T b) {
  return divide_up(a, b) * b;
}
/// a rounded up to a power of two.
TCNCA_HOST_DEVICE constexpr index_t power_of_two(index_t a) {
  index_t p = 1;
  while (p < a) p *= 2;
  return p;
}

}  // namespace tcnca

namespace tcnca::inline TCNCA_TARGET::detail {

/// The type T[N]. GCC's -Wsign-conversion warns at every array bound that depends on a template argument; the warning
/// is disabled here.
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
#endif
template <class T, int N>
using array = T[N];
#if defined(__GNUC__) && !defined(__CUDACC__)
#pragma GCC diagnostic pop
#endif

}  // namespace tcnca::detail
