// Numbers with a bound on the error of a correct implementation, and sums of products of them.
#pragma once
#include <algorithm>
#include <cmath>

namespace tcnca::reference {

/// The arithmetic that an implementation computes with. A test sets it before it evaluates a reference; all 0: exact.
struct arithmetic {
  static inline double u = 0;        ///< unit roundoff: every operation is off by u times the magnitude of its result
  static inline double element = 0;  ///< unit roundoff of stored elements; 0 if that is the type that is computed with
  static inline double tiny = 0;     ///< half the smallest positive element; 0 as above
  static inline double least = 0;    ///< smallest normal number: exp may underflow to 0 below it
};

/// A value v as computed in fp64 and a bound e on the error of a correct implementation, which grows with every
/// operation. AnyOrder: the implementation may add the terms of a sum in any order, so rounding is relative to m, the
/// sum of the magnitudes of all terms. Otherwise it adds them as written, and m is |v|.
template <bool AnyOrder>
struct bounded_number : arithmetic {
  double v = 0, m = 0, e = 0;

  bounded_number() = default;
  explicit bounded_number(double x) : v(x), m(std::abs(x)) {}
  bounded_number(double value, double error) : bounded_number(value, std::abs(value), error) {}
  /// An infinity or a NaN has no error.
  bounded_number(double value, double magnitude, double error)
      : v(value), m(magnitude), e(std::isfinite(value) ? (std::isnan(error) ? INFINITY : error) : 0) {}

  double most() const { return m + e; }  ///< the largest magnitude that the computed value may have
  bounded_number rounded(double n) const { return {v, m, e + n * u * most()}; }  ///< after n more roundings

  friend bounded_number operator+(bounded_number a, bounded_number b) {
    double const sum = a.v + b.v;
    return bounded_number(sum, AnyOrder ? a.m + b.m : std::abs(sum), a.e + b.e).rounded(1);
  }
  friend bounded_number operator-(bounded_number a, bounded_number b) { return a + bounded_number(-b.v, b.m, b.e); }
  friend bounded_number operator*(bounded_number a, bounded_number b) {
    return bounded_number(a.v * b.v, a.m * b.m, product_error(a, b)).rounded(1);
  }
  /// The error of a product because its factors have errors.
  static double product_error(bounded_number a, bounded_number b) { return a.m * b.e + a.e * b.m + a.e * b.e; }
};
using bounded = bounded_number<false>;

// The references are written for a number type N: double and float compute values, bounded numbers compute bounds.

inline double value_of(double x) { return x; }
inline double value_of(float x) { return double(x); }
template <bool AnyOrder>
double value_of(bounded_number<AnyOrder> x) {
  return x.v;
}

/// x after n more roundings.
inline double rounded(double x, double) { return x; }
inline float rounded(float x, double) { return x; }
template <bool AnyOrder>
bounded_number<AnyOrder> rounded(bounded_number<AnyOrder> x, double n) {
  return x.rounded(n);
}

/// A sum of products. Bounds hold for any order of the terms.
template <class N>
struct sum {
  N total = N(0);
  void add(N a, N b) { total = total + a * b; }
  N get() const { return total; }
};
template <bool AnyOrder>
struct sum<bounded_number<AnyOrder>> {
  using number = bounded_number<AnyOrder>;
  double v = 0, e = 0, magnitude = 0, terms = 0;
  void add(number a, number b) {
    v += a.v * b.v, e += number::product_error(a, b), magnitude += a.most() * b.most(), terms++;
  }
  number get() const { return {v, AnyOrder ? magnitude : std::abs(v), e + (terms + 1) * arithmetic::u * magnitude}; }
};

/// x rounded to an element, to be stored.
inline bounded stored(bounded x) { return {x.v, x.e + arithmetic::element * x.most() + arithmetic::tiny}; }

}  // namespace tcnca::reference
