// Conversion between elements in memory (fp64, fp32, bf16, fp16) and packs of the accumulate type; rounds to nearest
// even. CPU: integer arithmetic on vectors, for any instruction set. CUDA: one instruction per element.
#pragma once
#include "../core/config.hpp"
#include "../core/numeric.hpp"
#include "global_store.hpp"
#include "host.hpp"

namespace tcnca::inline TCNCA_TARGET::detail {

#if defined(__CUDACC__)
/// Two floats rounded to T (to nearest even) in one register, `low` in the lower half. Called by any thread.
template <element T>
__device__ __forceinline__ uint32 narrow_pair(float low, float high) {
  uint32 y;
  if constexpr (same<T, bf16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  } else {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(high), "f"(low));
  }
  return y;
}
#endif

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

template <class T>
__device__ __forceinline__ float widen_low(uint32 pair) {
  if constexpr (same<T, bf16>) {
    return __uint_as_float(pair << 16);
  } else {
    return widen(fp16{uint16(pair)});
  }
}
template <class T>
__device__ __forceinline__ float widen_high(uint32 pair) {
  if constexpr (same<T, bf16>) {
    return __uint_as_float(pair & 0xffff0000u);
  } else {
    return widen(fp16{uint16(pair >> 16)});
  }
}

template <class T, bool InPairs>
struct conversion_unit {
  using type = T;
};
template <class T>
struct conversion_unit<T, true> {
  using type = uint32;
};

/// Accesses W elements, W * sizeof(T) <= 16 bytes, at once and converts each. Elements of 16 bits are converted in
/// pairs: one instruction per pair to narrow them, one per element to widen bf16.
template <class Pack, class T, int W>
struct convert {
  static constexpr bool in_pairs = sizeof(T) == 2 && W % 2 == 0;
  /// Elements, or pairs of them, as they lie in memory.
  struct alignas(sizeof(T) * W) elements {
    typename conversion_unit<T, in_pairs>::type e[in_pairs ? W / 2 : W];
  };

  static __device__ __forceinline__ elements load_elements(T const* p) { return *reinterpret_cast<elements const*>(p); }
  static __device__ __forceinline__ Pack widened(elements const& c) {
    Pack a;
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) {
      if constexpr (in_pairs) {
        a.v[i] = i % 2 == 0 ? widen_low<T>(c.e[i / 2]) : widen_high<T>(c.e[i / 2]);
      } else {
        a.v[i] = widen(c.e[i]);
      }
    }
    return a;
  }
  static __device__ __forceinline__ Pack load(T const* p) { return widened(load_elements(p)); }
  static __device__ __forceinline__ elements narrowed(Pack a) {
    elements c;
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) {
      if constexpr (in_pairs) {
        if (i % 2 == 0) c.e[i / 2] = narrow_pair<T>(a.v[i], a.v[i + 1]);
      } else {
        c.e[i] = narrow<T>(a.v[i]);
      }
    }
    return c;
  }
  static __device__ __forceinline__ void store(T* p, Pack a) { *reinterpret_cast<elements*>(p) = narrowed(a); }
#if defined(__CUDA_ARCH__)
  /// store() to global memory. 16 bytes are one instruction.
  static __device__ __forceinline__ void store_global(T* p, Pack a) {
    if constexpr (sizeof(elements) == 16) {
      elements const c = narrowed(a);
      uint32 words[4];
      memcpy(words, &c, 16);
      store_global_16(p, words);
    } else {
      store(p, a);
    }
  }
#endif
};

#else

template <class To, class From>
TCNCA_HOST_DEVICE To bits_as(From x) {
  static_assert(sizeof(To) == sizeof(From));
  To y;
  __builtin_memcpy(&y, &x, sizeof(To));
  return y;
}

/// Lane numbers as a type, for shuffles.
template <int... Indices>
struct lane_list {};
template <int N, int... Indices>
struct first_lanes : first_lanes<N - 1, N - 1, Indices...> {};
template <int... Indices>
struct first_lanes<0, Indices...> {
  using type = lane_list<Indices...>;
};

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

/// The bits of fp32 numbers, rounded to bf16 in their upper halves. The lower halves are of no meaning.
template <class U>
TCNCA_HOST_DEVICE U narrow_to_upper_half(U u) {
  U const rounded = u + 0x7fffu + ((u >> 16) & 1u);
  U const nan = u | 0x400000u;
  return (u & 0x7fffffffu) > 0x7f800000u ? nan : rounded;
}
template <class T, class U, class F>
TCNCA_HOST_DEVICE U narrow_bits(F x) {
  U const u = bits_as<U>(x);
  if constexpr (same<T, bf16>) {
    return narrow_to_upper_half<U>(u) >> 16;
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
  template <class E, int Lanes = W>
  struct shaped {
    typedef E type __attribute__((vector_size(sizeof(E) * Lanes)));
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
      a.v = widen_bits<T, typename shaped<uint32>::type, typename shaped<float>::type>(zero_extended(h));
    }
    return a;
  }
  static TCNCA_HOST_DEVICE auto narrowed(Pack a) {
    if constexpr (same) {
      return a.v;
    } else if constexpr (W == 1) {
      return T{uint16(narrow_bits<T, uint32, float>(a.v))};
    } else {
#if !defined(__CUDACC__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
      if constexpr (tcnca::same<T, bf16>) {
        return upper_halves(narrow_to_upper_half(bits_as<typename shaped<uint32>::type>(a.v)),
                            typename first_lanes<W>::type{});
      } else
#endif
      {
        return __builtin_convertvector(narrow_bits<T, typename shaped<uint32>::type, typename shaped<float>::type>(a.v),
                                       typename shaped<uint16>::type);
      }
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

 private:
  static TCNCA_HOST_DEVICE auto zero_extended(typename shaped<uint16>::type h) {
#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
    if constexpr (W == 16) {  // GCC 12 uses five instructions for the conversion
      typedef short shorts __attribute__((vector_size(32)));
      typedef int ints __attribute__((vector_size(64)));
      return (typename shaped<uint32>::type)__builtin_ia32_pmovzxwd512_mask((shorts)h, ints{}, static_cast<short>(-1));
    } else
#endif
    {
      return __builtin_convertvector(h, typename shaped<uint32>::type);
    }
  }
#if !defined(__CUDACC__)
  template <int... Lanes>
  static TCNCA_HOST_DEVICE auto upper_halves(typename shaped<uint32>::type u, lane_list<Lanes...>) {
    auto const h = reinterpret_cast<typename shaped<uint16, 2 * W>::type>(u);
    return __builtin_shufflevector(h, h, (2 * Lanes + 1)...);
  }
#endif
};

#endif

}  // namespace tcnca::detail
