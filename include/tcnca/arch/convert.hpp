// Conversion between elements in memory (fp64, fp32, bf16, fp16) and packs of the accumulate type; rounds to nearest
// even. CPU: integer arithmetic on vectors, for any instruction set. CUDA: one instruction per element.
#pragma once
#include "../core/config.hpp"
#include "../core/numeric.hpp"
#include "host.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)

__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float(uint32(x.bits) << 16); }
__device__ __forceinline__ float widen(fp16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ double widen(double x) { return x; }

template <class T>
__device__ __forceinline__ T narrow(accumulate_t<T> x) {
  if constexpr (same<T, bf16>) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
  } else if constexpr (same<T, fp16>) {
    fp16 y;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
  } else {
    return x;
  }
}

/// Accesses W elements, W * sizeof(T) <= 16 bytes, at once and converts each.
template <class Pack, class T, int W>
struct convert {
  struct alignas(sizeof(T) * W) vector {
    T e[W];
  };
  static __device__ __forceinline__ Pack load(T const* p) {
    vector const c = *reinterpret_cast<vector const*>(p);
    Pack a;
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) a.v[i] = widen(c.e[i]);
    return a;
  }
  static __device__ __forceinline__ void store(T* p, Pack a) {
    vector c;
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) c.e[i] = narrow<T>(a.v[i]);
    *reinterpret_cast<vector*>(p) = c;
  }
};

#else

template <class To, class From>
TCNCA_HOST_DEVICE To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  __builtin_memcpy(&y, &x, sizeof(To));
  return y;
}

// Conversions of the 16-bit formats. U: uint32 or a vector of it; F: float or a vector of the same size.
template <class T, class U, class F>
TCNCA_HOST_DEVICE F widen_bits(U h) {
  if constexpr (same<T, bf16>) {
    return bits_as<F>(h << 16);
  } else {
    U const magnitude = (h & 0x7fffu) << 13;
    // Denormals are scaled by a subtraction, not by a product: in programs linked with -ffast-math the processor reads
    // denormals as zero.
    F const scaled =
        magnitude < 0x00800000u ? bits_as<F>(magnitude + 0x38800000u) - 0x1p-14f : bits_as<F>(magnitude + 0x38000000u);
    U const special = magnitude >= 0x0f800000u ? (h - h) + 0x7f800000u : h - h;  // infinity or NaN
    return bits_as<F>(bits_as<U>(scaled) | special | (h & 0x8000u) << 16);
  }
}

template <class T, class U, class F>
TCNCA_HOST_DEVICE U narrow_bits(F x) {
  U const u = bits_as<U>(x);
  if constexpr (same<T, bf16>) {
    U const rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    U const nan = (u >> 16) | 0x40u;
    return (u & 0x7fffffffu) > 0x7f800000u ? nan : rounded;
  } else {
    U const a = u & 0x7fffffffu;
    U const normal = (a + 0xc8000fffu + ((a >> 13) & 1u)) >> 13;
    U const denormal = bits_as<U>(bits_as<F>(a) + 0.5f) - 0x3f000000u;
    U const special = a > 0x7f800000u ? (a - a) + 0x7e00u : (a - a) + 0x7c00u;
    U const finite = a < 0x38800000u ? denormal : normal;
    return (a >= 0x47800000u ? special : finite) | ((u >> 16) & 0x8000u);
  }
}

template <class Pack, class T, int W>
struct convert {
  using accumulate = accumulate_t<T>;
  static constexpr bool same = sizeof(T) == sizeof(accumulate);
  template <class E>
  struct shaped {
    typedef E type __attribute__((vector_size(sizeof(E) * W)));
  };

  // The ABI for passing a vector wider than a register depends on the compiler's flags, so such a vector is converted
  // in two halves.
  static constexpr bool two_registers = sizeof(accumulate) * W > register_bytes;
  struct half {
    typedef accumulate type __attribute__((vector_size(sizeof(accumulate) * W / (two_registers ? 2 : 1))));
    type v;
  };
  using of_half = convert<half, T, W / 2>;

  static TCNCA_HOST_DEVICE Pack load(T const* p) {
    Pack a;
    if constexpr (two_registers && !same) {
      half const parts[] = {of_half::load(p), of_half::load(p + W / 2)};
      __builtin_memcpy(&a.v, parts, sizeof(a.v));
    } else if constexpr (same) {
      __builtin_memcpy(&a.v, p, sizeof(T) * W);
    } else if constexpr (W == 1) {
      a.v = widen_bits<T, uint32, float>(p->bits);
    } else {
      typename shaped<uint16>::type h;
      __builtin_memcpy(&h, p, sizeof(h));
      a.v = widen_bits<T, typename shaped<uint32>::type, typename shaped<float>::type>(
          __builtin_convertvector(h, typename shaped<uint32>::type));
    }
    return a;
  }
  static TCNCA_HOST_DEVICE auto narrowed(Pack a) {
    if constexpr (same) {
      return a.v;
    } else if constexpr (W == 1) {
      return T{uint16(narrow_bits<T, uint32, float>(a.v))};
    } else {
      return __builtin_convertvector(narrow_bits<T, typename shaped<uint32>::type, typename shaped<float>::type>(a.v),
                                     typename shaped<uint16>::type);
    }
  }
  static TCNCA_HOST_DEVICE void store(T* p, Pack a) {
    if constexpr (same) {
      __builtin_memcpy(p, &a.v, sizeof(T) * W);
    } else if constexpr (two_registers) {
      half parts[2];
      __builtin_memcpy(parts, &a.v, sizeof(a.v));
      of_half::store(p, parts[0]), of_half::store(p + W / 2, parts[1]);
    } else {
      auto const elements = narrowed(a);
      __builtin_memcpy(p, &elements, sizeof(T) * W);
    }
  }
  static TCNCA_HOST_DEVICE void stream(T* p, Pack a) {
    if constexpr (W > 1 && !two_registers) {
      detail::stream(p, narrowed(a));
    } else {
      store(p, a);
    }
  }
};

#endif

}  // namespace tcnca::detail
