// pack<T, W>: W elements, consecutive along the contiguous axis; the unit of all arithmetic.
// On the CPU a native vector type: with a plain array GCC 12 keeps the lanes in memory, which is five times slower.
#pragma once
#include "../arch/convert.hpp"
#include "../arch/host.hpp"
#include "../core/config.hpp"
#include "../core/numeric.hpp"

#if defined(__clang__) && !defined(__CUDACC__)
#pragma float_control(push)
#pragma float_control(precise, on)
#endif

namespace tcnca::inline TCNCA_TARGET {

#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)

/// W lanes of T (float or double) in the registers of one CUDA thread.
template <class T, int W>
struct alignas(sizeof(T) * W) pack {
  T v[W];

  TCNCA_HOST_DEVICE T lane(int i) const { return v[i]; }
  TCNCA_HOST_DEVICE void set_lane(int i, T x) { v[i] = x; }
  template <class F>
  TCNCA_HOST_DEVICE friend pack zip(pack a, pack b, F f) {
    pack c;
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) c.v[i] = f(a.v[i], b.v[i]);
    return c;
  }
  TCNCA_HOST_DEVICE friend pack operator+(pack a, pack b) {
    return zip(a, b, [](T x, T y) TCNCA_INLINE { return x + y; });
  }
  TCNCA_HOST_DEVICE friend pack operator-(pack a, pack b) {
    return zip(a, b, [](T x, T y) TCNCA_INLINE { return x - y; });
  }
  /// Never contracted: only fma() fuses, so that results do not depend on what the compiler inlines.
  TCNCA_HOST_DEVICE friend pack operator*(pack a, pack b) {
    return zip(a, b, [](T x, T y) TCNCA_INLINE {
      if constexpr (sizeof(T) == 4) {
        return __fmul_rn(x, y);
      } else {
        return __dmul_rn(x, y);
      }
    });
  }
  /// fp32: accurate to 2 units in the last place, without the slow path of the exact division.
  TCNCA_HOST_DEVICE friend pack operator/(pack a, pack b) {
    return zip(a, b, [](T x, T y) TCNCA_INLINE {
      if constexpr (sizeof(T) == 4) {
        return __fdividef(x, y);
      } else {
        return x / y;
      }
    });
  }
  /// a * b + c, rounded once.
  TCNCA_HOST_DEVICE friend pack fma(pack a, pack b, pack c) {
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) c.v[i] = ::fma(a.v[i], b.v[i], c.v[i]);
    return c;
  }
  /// In each lane: x < 0 ? 0 : x; a NaN stays one.
  TCNCA_HOST_DEVICE friend pack max_zero(pack x) {
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) x.v[i] = x.v[i] < T(0) ? T(0) : x.v[i];
    return x;
  }
  /// In each lane: x > 0 ? a : b.
  TCNCA_HOST_DEVICE friend pack select_positive(pack x, pack a, pack b) {
    TCNCA_UNROLL
    for (int i = 0; i < W; i++) b.v[i] = x.v[i] > T(0) ? a.v[i] : b.v[i];
    return b;
  }
};

#else

namespace detail {
template <class T, int W>
struct vector_of {
  typedef T type __attribute__((vector_size(sizeof(T) * W)));
};
template <class T>
struct vector_of<T, 1> {
  typedef T type;
};
}  // namespace detail

/// W lanes of T (float or double) in a vector register of the CPU.
template <class T, int W>
struct pack {
  typename detail::vector_of<T, W>::type v;

  TCNCA_HOST_DEVICE T lane(int i) const {
    if constexpr (W == 1) {
      return v;
    } else {
      return v[i];
    }
  }
  TCNCA_HOST_DEVICE void set_lane(int i, T x) {
    if constexpr (W == 1) {
      v = x;
    } else {
      v[i] = x;
    }
  }
  TCNCA_HOST_DEVICE friend pack operator+(pack a, pack b) { return {a.v + b.v}; }
  TCNCA_HOST_DEVICE friend pack operator-(pack a, pack b) { return {a.v - b.v}; }
  TCNCA_HOST_DEVICE friend pack operator*(pack a, pack b) { return {detail::no_contract(a.v * b.v)}; }
  TCNCA_HOST_DEVICE friend pack operator/(pack a, pack b) { return {detail::quotient(a.v, b.v)}; }
  /// a * b + c, rounded once if the target has a fused multiply-add.
  TCNCA_HOST_DEVICE friend pack fma(pack a, pack b, pack c) { return {detail::fused(a.v, b.v, c.v)}; }
  /// In each lane: x < 0 ? 0 : x; a NaN stays one.
  TCNCA_HOST_DEVICE friend pack max_zero(pack x) {
    if constexpr (W == 1) {
      return {detail::if_greater(T(0), x.v, T(0), x.v)};
    } else {
      return {detail::max_zero(x.v)};
    }
  }
  /// In each lane: x > 0 ? a : b.
  TCNCA_HOST_DEVICE friend pack select_positive(pack x, pack a, pack b) {
    typename detail::vector_of<T, W>::type zero{};
    return {detail::if_greater(x.v, zero, a.v, b.v)};
  }
};

#endif

#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
/// Whether `shifted` is one instruction.
template <class T, int W>
inline constexpr bool has_shifted = false;
#else
template <class T, int W>
inline constexpr bool has_shifted = W > 1 && detail::has_shifted_pair<typename detail::vector_of<T, W>::type>;
#endif

/// Lanes Shift, Shift + 1, ... of the concatenation of a and b; 0 < Shift < W. CPU only; one instruction if
/// has_shifted.
template <int Shift, class T, int W>
TCNCA_HOST_DEVICE pack<T, W> shifted(pack<T, W> a, [[maybe_unused]] pack<T, W> b) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return a;
#else
  if constexpr (W == 1) {
    return a;
  } else {
    return {detail::shifted_pair<Shift>(a.v, b.v)};
  }
#endif
}

/// In each lane a > b ? a : b. (select_positive(a - b, a, b) would fail for two infinities.)
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> max_or_second(pack<T, W> a, pack<T, W> b) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  TCNCA_UNROLL
  for (int i = 0; i < W; i++) b.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
  return b;
#else
  return {detail::if_greater(a.v, b.v, a.v, b.v)};
#endif
}

/// Returns a. Optimization barrier: stops GCC from sinking the computation of a below the next branch and spilling its
/// inputs.
template <class T, int W>
TCNCA_HOST_DEVICE pack<T, W> materialize(pack<T, W> a) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  return a;
#else
  return {detail::no_contract(a.v)};
#endif
}

/// Lanes of T in the widest vector register of the CPU that this translation unit is compiled for.
template <class T>
inline constexpr int native_lanes = detail::register_bytes / int(sizeof(T));

/// The same value in all lanes.
template <int W, class T>
TCNCA_HOST_DEVICE pack<T, W> broadcast(T x) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  pack<T, W> p;
  TCNCA_UNROLL
  for (int i = 0; i < W; i++) p.v[i] = x;
  return p;
#else
  if constexpr (W == 1) {
    return {x};
  } else {
    return {x - typename detail::vector_of<T, W>::type{}};
  }
#endif
}

/// f applied to each lane.
template <class T, int W, class F>
TCNCA_HOST_DEVICE pack<T, W> map(pack<T, W> p, F f) {
  TCNCA_UNROLL
  for (int i = 0; i < W; i++) p.set_lane(i, f(p.lane(i)));
  return p;
}

/// Lanes [first, first + Part).
template <int Part, class T, int W>
TCNCA_HOST_DEVICE pack<T, Part> part_of(pack<T, W> p, [[maybe_unused]] int first) {
  if constexpr (Part == W) {
    return p;
  } else {
    pack<T, Part> part;
    TCNCA_UNROLL
    for (int i = 0; i < Part; i++) part.set_lane(i, p.lane(first + i));
    return part;
  }
}
/// Replaces these lanes.
template <class T, int W, int Part>
TCNCA_HOST_DEVICE void set_part(pack<T, W>& p, [[maybe_unused]] int first, pack<T, Part> part) {
  if constexpr (Part == W) {
    p = part;
  } else {
    TCNCA_UNROLL
    for (int i = 0; i < Part; i++) p.set_lane(first + i, part.lane(i));
  }
}

/// The sum of the lanes, as a balanced tree in a fixed order.
template <class T, int W>
TCNCA_HOST_DEVICE T sum_lanes(pack<T, W> p) {
  detail::array<T, W> s;
  TCNCA_UNROLL
  for (int i = 0; i < W; i++) s[i] = p.lane(i);
  TCNCA_UNROLL
  for (int half = W / 2; half > 0; half /= 2) TCNCA_UNROLL
  for (int i = 0; i < half; i++) s[i] += s[i + half];
  return s[0];
}

/// W elements at p, in the accumulate type. On a GPU p must be aligned to W elements, on the CPU to one.
template <int W, class T>
TCNCA_HOST_DEVICE pack<accumulate_t<T>, W> load(T const* p) {
  return detail::convert<pack<accumulate_t<T>, W>, T, W>::load(p);
}

/// W elements at p, which is aligned to one element on all targets.
template <int W, class T>
TCNCA_HOST_DEVICE pack<accumulate_t<T>, W> load_anywhere(T const* p) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  pack<accumulate_t<T>, W> a;
  TCNCA_UNROLL
  for (int i = 0; i < W; i++) a.v[i] = load<1>(p + i).v[0];
  return a;
#else
  return load<W>(p);
#endif
}

/// Writes W elements at p, rounded to nearest even. Alignment as for load.
template <int W, class T>
TCNCA_HOST_DEVICE void store(T* p, pack<accumulate_t<T>, W> a) {
  detail::convert<pack<accumulate_t<T>, W>, T, W>::store(p, a);
}

/// The same to global memory: on a GPU 16 bytes are one instruction, where the compiler may split them else.
template <int W, class T>
TCNCA_HOST_DEVICE void store_global(T* p, pack<accumulate_t<T>, W> a) {
#if defined(__CUDA_ARCH__)
  detail::convert<pack<accumulate_t<T>, W>, T, W>::store_global(p, a);
#else
  store<W>(p, a);
#endif
}

/// store() with a non-temporal store on the CPU; p must be aligned to W elements. Visible to other threads after
/// end_streaming() on this thread.
template <int W, class T>
TCNCA_HOST_DEVICE void store_streaming(T* p, pack<accumulate_t<T>, W> a) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
  store<W>(p, a);
#else
  detail::convert<pack<accumulate_t<T>, W>, T, W>::stream(p, a);
#endif
}
TCNCA_HOST_DEVICE void end_streaming() {
#if !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)
  detail::stream_end();
#endif
}

/// One element in the accumulate type.
template <element T>
TCNCA_HOST_DEVICE accumulate_t<T> to_accumulate(T x) {
  return load<1>(&x).lane(0);
}

/// One value of the accumulate type as an element.
template <element T>
TCNCA_HOST_DEVICE T from_accumulate(accumulate_t<T> x) {
  T y;
  store<1>(&y, broadcast<1>(x));
  return y;
}

/// The bits of an element of T, a 16-bit type, or of one of accumulate_t<T> rounded to T.
template <element T, element U>
TCNCA_HOST_DEVICE uint16 element_bits(U x) {
  if constexpr (same<T, U>) {
    return x.bits;
  } else {
    return from_accumulate<T>(x).bits;
  }
}

/// The first n of W elements, `stride` apart; the other lanes are zero.
template <int W, class T>
TCNCA_NOINLINE pack<accumulate_t<T>, W> load_some(T const* p, index_t stride, index_t n) {
  auto a = broadcast<W>(accumulate_t<T>(0));
  TCNCA_UNROLL
  for (int i = 0; i < W; i++)
    if (i < n) a.set_lane(i, to_accumulate(p[i * stride]));
  return a;
}

/// Writes the first n of W lanes, `stride` apart.
template <int W, class T>
TCNCA_NOINLINE void store_some(T* p, index_t stride, index_t n, pack<accumulate_t<T>, W> a) {
  TCNCA_UNROLL
  for (int i = 0; i < W; i++)
    if (i < n) p[i * stride] = from_accumulate<T>(a.lane(i));
}

}  // namespace tcnca

#if defined(__clang__) && !defined(__CUDACC__)
#pragma float_control(pop)
#endif
