// The interface of the two parts of the program: one computes in fp64, the other in fp32 with the flags under test.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace flags {

struct row {
  std::string name;
  std::vector<double> values;
  double bound = 1e-6;  ///< relative to the larger of 1 and the value
};
using report = std::vector<row>;

/// Pseudo-random numbers in [-scale, scale]. Defined in main.cpp, compiled without the flags.
std::vector<float> some(std::size_t n, double scale, unsigned seed);
/// The value of a 16-bit floating-point number with this many exponent bits.
double value_of(unsigned bits, int exponent_bits);

report fp64();  // compiled without the flags under test
report fp32();  // compiled with them

}  // namespace flags
