// Element types: fp64, fp32, bf16, fp16, and the type in which they are accumulated.
#pragma once
#include "config.hpp"
#include "options.hpp"

namespace tcnca {

/// bfloat16 in storage: the upper half of an fp32. Same bits as CUDA's __nv_bfloat16; arithmetic is done in fp32.
struct bf16 {
  uint16 bits;
};

/// IEEE binary16 in storage. Same bits as CUDA's __half and C's _Float16; arithmetic is done in fp32.
struct fp16 {
  uint16 bits;
};

}  // namespace tcnca

namespace tcnca::inline TCNCA_TARGET {

namespace detail {
#if !defined(__CUDACC_RTC__)
/// Whether x is neither infinite nor NaN. Tests the bits, because with -ffast-math the compiler assumes that every
/// number is finite.
inline bool is_finite(double x) {
  asm("" : "+m"(x));
  uint64 bits;
  __builtin_memcpy(&bits, &x, sizeof bits);
  return (bits & 0x7ff0000000000000u) != 0x7ff0000000000000u;
}
#endif

template <class T>
struct element_traits {
  static constexpr bool valid = false;
};
template <>
struct element_traits<double> {
  static constexpr bool valid = true;
  using accumulate = double;
  static constexpr double epsilon = 0x1p-53;
};
template <>
struct element_traits<float> {
  static constexpr bool valid = true;
  using accumulate = float;
  static constexpr double epsilon = 0x1p-24;
};
template <>
struct element_traits<bf16> {
  static constexpr bool valid = true;
  using accumulate = float;
  static constexpr double epsilon = 0x1p-8;
};
template <>
struct element_traits<fp16> {
  static constexpr bool valid = true;
  using accumulate = float;
  static constexpr double epsilon = 0x1p-11;
};
}  // namespace detail

/// The element types of tensors: double, float, bf16, fp16.
template <class T>
concept element = detail::element_traits<T>::valid;

/// The type in which elements of T are accumulated: T itself for fp64 and fp32, fp32 for the 16-bit types.
template <element T>
using accumulate_t = typename detail::element_traits<T>::accumulate;

namespace detail {
template <element T, parameter_type Type>
struct parameter_of {
  using type = T;
};
template <element T>
struct parameter_of<T, parameter_type::accumulate> {
  using type = accumulate_t<T>;
};
}  // namespace detail

/// The type of the parameters of an operation on elements of T.
template <element T, parameter_type Type>
using parameter_t = typename detail::parameter_of<T, Type>::type;

/// The unit roundoff of T: the relative error of one rounding to nearest.
template <element T>
inline constexpr double epsilon = detail::element_traits<T>::epsilon;

}  // namespace tcnca
