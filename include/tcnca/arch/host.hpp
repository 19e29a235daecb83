// Single CPU instructions that compilers do not select by themselves, and barriers against contraction and
// reassociation. By builtins: <immintrin.h> takes longer to include than all of tcnca.
#pragma once
#include "../core/config.hpp"

// Clang: the arithmetic of this header, of packs and of activations is evaluated as written, also with -ffast-math. GCC
// has no such pragma; barriers and intrinsics are used where it matters.
#if defined(__clang__) && !defined(__CUDACC__)
#pragma float_control(push)
#pragma float_control(precise, on)
#endif

namespace tcnca::inline TCNCA_TARGET::detail {

/// Bytes of the widest vector register that this translation unit may use.
inline constexpr int register_bytes =
#if defined(__AVX512F__)
    64;
#elif defined(__AVX__)
    32;
#else
    16;
#endif

/// Returns x and prevents its contraction with later operations: a product that passes through here is rounded and
/// never part of a fused multiply-add. Results then do not depend on the compiler's inlining.
template <class V>
TCNCA_HOST_DEVICE V no_contract(V x) {
  // Clang does not accept a vector of less than 16 bytes as a register operand.
  [[maybe_unused]] constexpr bool short_vector = sizeof(V) < 16 && requires { x[0]; };
#if defined(__x86_64__) && defined(__AVX512VL__)
  if constexpr (sizeof(V) <= 64 && !short_vector) {
    asm("" : "+v"(x));
  } else {
    asm("" : "+m"(x));
  }
#elif defined(__x86_64__) && defined(__AVX__)
  if constexpr (sizeof(V) <= 32 && !short_vector) {
    asm("" : "+x"(x));
  } else {
    asm("" : "+m"(x));
  }
#elif defined(__x86_64__)
  if constexpr (sizeof(V) <= 16 && !short_vector) {
    asm("" : "+x"(x));
  } else {
    asm("" : "+m"(x));
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(V) <= 16) {
    asm("" : "+w"(x));
  } else {
    asm("" : "+m"(x));
  }
#else
  asm("" : "+m"(x));
#endif
  return x;
}

/// a / b, rounded once. With -ffast-math GCC multiplies by an estimate of 1 / b, which is wrong for infinities and else
/// has an error of one unit in the last place: too much for 1 - a / b if a / b is close to 1.
template <class V>
TCNCA_HOST_DEVICE V quotient(V a, V b) {
#if !defined(__clang__) && defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ && defined(__SSE2__)
  if constexpr (sizeof(V) >= 16) {
    if constexpr (sizeof(a[0]) == 4) {
#if defined(__AVX512F__)
      if constexpr (sizeof(V) == 64) {
        asm("vdivps %1, %0, %0" : "+v"(a) : "v"(b));
      } else
#endif
#if defined(__AVX__)
          if constexpr (sizeof(V) <= 32) {
        asm("vdivps %1, %0, %0" : "+x"(a) : "x"(b));
      }
#else
      if constexpr (sizeof(V) == 16) {
        asm("divps %1, %0" : "+x"(a) : "x"(b));
      }
#endif
      else {
        return a / b;
      }  // wider than a register; no default tuning uses it
      return a;
    }
  }
#endif
  return a / b;
}

/// Whether the compiler assumes that infinities and NaNs do not occur (-ffinite-math-only, -ffast-math). The library
/// supports them in any case.
inline constexpr bool finite_math =
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ && !defined(__CUDA_ARCH__)
    true;
#else
    false;
#endif

/// The bits of an fp32 or fp64 number, or of a vector of them, as signed integers of the same size. The compiler cannot
/// make assumptions about them.
template <class Indices, class V>
TCNCA_HOST_DEVICE Indices opaque_bits(V x) {
  static_assert(sizeof(Indices) == sizeof(V));
  x = no_contract(x);
  Indices bits;
  __builtin_memcpy(&bits, &x, sizeof(Indices));
  return bits;
}
/// The signed integer type of the same size as V, and the type of a lane of V.
template <class V>
struct bits_of {  // V is a vector
  using type = decltype(V{} > V{});
  using number = typename bits_of<decltype(V{}[0] + V{}[0])>::number;
};
template <>
struct bits_of<float> {
  using type = int;
  using number = float;
};
template <>
struct bits_of<double> {
  using type = long long;
  using number = double;
};

/// a > b ? yes : no in each lane. The result is `no` where a or b is NaN.
template <class V>
TCNCA_HOST_DEVICE V if_greater(V a, V b, V yes, V no) {
  if constexpr (finite_math) {
    using ints = typename bits_of<V>::type;
    constexpr bool is_double = same<typename bits_of<V>::number, double>;
    constexpr int sign = is_double ? 63 : 31;
    constexpr auto magnitude =
        static_cast<typename bits_of<typename bits_of<V>::number>::type>(is_double ? 0x7fffffffffffffff : 0x7fffffff);
    constexpr auto infinity =
        static_cast<typename bits_of<typename bits_of<V>::number>::type>(is_double ? 0x7ff0000000000000 : 0x7f800000);
    ints const x = opaque_bits<ints>(a), y = opaque_bits<ints>(b);
    auto const is_greater =
        (x ^ ((x >> sign) & magnitude)) > (y ^ ((y >> sign) & magnitude));  // integers ordered like the numbers
    auto const numbers = ((x & magnitude) <= infinity) & ((y & magnitude) <= infinity);
    return (is_greater & numbers) ? yes : no;
  } else {
    return a > b ? yes : no;
  }
}
/// Whether x is zero. False for NaN.
template <class T>
TCNCA_HOST_DEVICE bool is_zero(T x) {
  if constexpr (finite_math) {
    return (opaque_bits<typename bits_of<T>::type>(x) & ~(typename bits_of<T>::type(1) << (8 * sizeof(T) - 1))) == 0;
  } else {
    return x == T(0);
  }
}

#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__) && defined(__SSE2__) && \
    !(defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
/// In each lane the larger or the smaller one of a and b; b if one of them is NaN. One instruction for vectors of a
/// register's size.
template <bool Larger, class V>
TCNCA_HOST_DEVICE V extreme_or_second(V a, V b) {
  if constexpr (sizeof(V) <= 8) {
    return (Larger ? a > b : a < b) ? a : b;
  } else
#if defined(__AVX512F__)
      if constexpr (sizeof(V) == 64 && sizeof(a[0]) == 4) {
    return Larger ? __builtin_ia32_maxps512_mask(a, b, a, static_cast<short>(-1), 4)
                  : __builtin_ia32_minps512_mask(a, b, a, static_cast<short>(-1), 4);
  } else if constexpr (sizeof(V) == 64) {
    return Larger ? __builtin_ia32_maxpd512_mask(a, b, a, static_cast<char>(-1), 4)
                  : __builtin_ia32_minpd512_mask(a, b, a, static_cast<char>(-1), 4);
  } else
#endif
#if defined(__AVX__)
      if constexpr (sizeof(V) == 32 && sizeof(a[0]) == 4) {
    return Larger ? __builtin_ia32_maxps256(a, b) : __builtin_ia32_minps256(a, b);
  } else if constexpr (sizeof(V) == 32) {
    return Larger ? __builtin_ia32_maxpd256(a, b) : __builtin_ia32_minpd256(a, b);
  } else
#endif
      if constexpr (sizeof(V) == 16 && sizeof(a[0]) == 4) {
    return Larger ? __builtin_ia32_maxps(a, b) : __builtin_ia32_minps(a, b);
  } else if constexpr (sizeof(V) == 16) {
    return Larger ? __builtin_ia32_maxpd(a, b) : __builtin_ia32_minpd(a, b);
  } else {
    return (Larger ? a > b : a < b) ? a : b;
  }
}
#else
template <bool Larger, class V>
TCNCA_HOST_DEVICE V extreme_or_second(V a, V b) {
  return Larger ? if_greater(a, b, a, b) : if_greater(b, a, a, b);
}
#endif

/// In each lane a > b ? a : b; b if one of them is NaN.
template <class V>
TCNCA_HOST_DEVICE V max_or_second(V a, V b) {
  return extreme_or_second<true>(a, b);
}
/// In each lane a < b ? a : b; b if one of them is NaN.
template <class V>
TCNCA_HOST_DEVICE V min_or_second(V a, V b) {
  return extreme_or_second<false>(a, b);
}

/// max(0, x) in each lane; NaN if x is NaN.
template <class V>
TCNCA_HOST_DEVICE V max_zero(V x) {
  return max_or_second(V{}, x);
}

/// a * b + c, rounded once on processors with a fused multiply-add. By builtins: GCC's own contraction depends on the
/// surrounding code, and results must not.
template <class V>
TCNCA_HOST_DEVICE V fused(V a, V b, V c) {
#if defined(__GNUC__) && !defined(__clang__) && defined(__FMA__)
  if constexpr (same<V, float>) {
    return __builtin_fmaf(a, b, c);
  } else if constexpr (same<V, double>) {
    return __builtin_fma(a, b, c);
  }
#if !defined(__CUDACC__)
  else if constexpr (sizeof(V) == 16 && sizeof(a[0]) == 4) {
    return __builtin_ia32_vfmaddps(a, b, c);
  } else if constexpr (sizeof(V) == 16) {
    return __builtin_ia32_vfmaddpd(a, b, c);
  } else if constexpr (sizeof(V) == 32 && sizeof(a[0]) == 4) {
    return __builtin_ia32_vfmaddps256(a, b, c);
  } else if constexpr (sizeof(V) == 32) {
    return __builtin_ia32_vfmaddpd256(a, b, c);
  }
#if defined(__AVX512F__)
  else if constexpr (sizeof(V) == 64 && sizeof(a[0]) == 4) {
    return __builtin_ia32_vfmaddps512_mask(a, b, c, static_cast<short>(-1), 4);
  } else if constexpr (sizeof(V) == 64) {
    return __builtin_ia32_vfmaddpd512_mask(a, b, c, static_cast<char>(-1), 4);
  }
#endif
#endif
  else {
    return a * b + c;
  }
#else
  return a * b + c;
#endif
}

#if !defined(__CUDACC__)
/// The 64-bit products of the low halves of the 64-bit lanes. GCC has no pattern for this instruction.
template <class V>
TCNCA_HOST_DEVICE V product_of_low_halves(V a, V b) {
#if !defined(__clang__) && defined(__SSE2__)
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    typedef int ints __attribute__((vector_size(64)));
    typedef long long longs __attribute__((vector_size(64)));
    return (V)__builtin_ia32_pmuludq512_mask((ints)a, (ints)b, (longs)a, uint8(0xff));
  } else
#endif
#if defined(__AVX2__)
      if constexpr (sizeof(V) == 32) {
    typedef int ints __attribute__((vector_size(32)));
    return (V)__builtin_ia32_pmuludq256((ints)a, (ints)b);
  } else
#endif
      if constexpr (sizeof(V) == 16) {
    typedef int ints __attribute__((vector_size(16)));
    return (V)__builtin_ia32_pmuludq128((ints)a, (ints)b);
  }
#endif
  return (a & 0xffffffffu) * (b & 0xffffffffu);
}

template <int Bytes>
struct float_vector {
  typedef float type __attribute__((vector_size(Bytes)));
};
#endif
/// Non-temporal store of a vector to memory aligned to its size. Other threads see it after stream_end() on this
/// thread.
template <class V>
TCNCA_HOST_DEVICE void stream(void* to, V v) {
#if !defined(__CUDACC__) && defined(__clang__)
  __builtin_nontemporal_store(v, static_cast<V*>(to));
#elif !defined(__CUDACC__) && defined(__SSE2__)
  [[maybe_unused]] auto const bits = __builtin_bit_cast(typename float_vector<sizeof(V)>::type, v);
  [[maybe_unused]] float* const p = static_cast<float*>(to);
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) { return __builtin_ia32_movntps512(p, bits); }
#endif
#if defined(__AVX__)
  if constexpr (sizeof(V) == 32) { return __builtin_ia32_movntps256(p, bits); }
#endif
  if constexpr (sizeof(V) == 16) { return __builtin_ia32_movntps(p, bits); }
  __builtin_memcpy(to, &v, sizeof(V));
#else
  __builtin_memcpy(to, &v, sizeof(V));
#endif
}
TCNCA_HOST_DEVICE void stream_end() {
#if defined(__SSE2__) && !defined(__CUDACC__)
  __builtin_ia32_sfence();
#endif
}

/// Whether shifted_pair is one instruction for a vector V.
template <class V>
inline constexpr bool has_shifted_pair =
#if defined(__AVX512F__) && !defined(__CUDACC__)
    sizeof(V) == 64;
#else
    false;
#endif

/// Lanes Shift, Shift + 1, ... of the concatenation of a and b; 0 < Shift < number of lanes.
template <int Shift, class V>
TCNCA_HOST_DEVICE V shifted_pair(V a, V b) {
  constexpr int n = int(sizeof(V) / sizeof(a[0])), s = Shift;
#if defined(__CUDACC__)
  V c = a;
  for (int i = 0; i < n; i++) c[i] = i + s < n ? a[(i + s) % n] : b[(i + s) % n];
  return c;
#else
#if defined(__AVX512F__) && !defined(__clang__)
  if constexpr (sizeof(V) == 64) {  // GCC 12 does not select this instruction for __builtin_shufflevector
    typedef int ints __attribute__((vector_size(64)));
    typedef long long longs __attribute__((vector_size(64)));
    if constexpr (n == 16) {
      return (V)__builtin_ia32_alignd512_mask((ints)b, (ints)a, s, (ints)a, uint16(0xffff));
    } else {
      return (V)__builtin_ia32_alignq512_mask((longs)b, (longs)a, s, (longs)a, uint8(0xff));
    }
  } else
#endif
      if constexpr (n == 2) {
    return __builtin_shufflevector(a, b, s, s + 1);
  } else if constexpr (n == 4) {
    return __builtin_shufflevector(a, b, s, s + 1, s + 2, s + 3);
  } else if constexpr (n == 8) {
    return __builtin_shufflevector(a, b, s, s + 1, s + 2, s + 3, s + 4, s + 5, s + 6, s + 7);
  } else {
    static_assert(n == 16);
    return __builtin_shufflevector(a, b, s, s + 1, s + 2, s + 3, s + 4, s + 5, s + 6, s + 7, s + 8, s + 9, s + 10,
                                   s + 11, s + 12, s + 13, s + 14, s + 15);
  }
#endif
}

/// The compiler moves no memory access across this call.
TCNCA_HOST_DEVICE void compiler_fence() { asm volatile("" ::: "memory"); }

/// Prefetches the cache line at p; any address is allowed.
TCNCA_HOST_DEVICE void prefetch([[maybe_unused]] void const* p) {
#if !defined(__CUDACC__)
  __builtin_prefetch(p);
#endif
}

}  // namespace tcnca::detail

#if defined(__clang__) && !defined(__CUDACC__)
#pragma float_control(pop)
#endif
