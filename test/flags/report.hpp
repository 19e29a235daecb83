// What two parts of a program compute alike: the one in fp64, the other in fp32 with the flags under test.
#pragma once
#include <cstddef>
#include <string>
#include <vector>

namespace flags {

struct row {
  std::string name;
  std::vector<double> values;
  double bound = 1e-6;  ///< times 1 or the value, whichever is larger
};
using report = std::vector<row>;

/// Numbers in [-scale, scale]; main.cpp has them made without flags.
std::vector<float> some(std::size_t n, double scale, unsigned seed);
/// What the bits of a 16-bit number with this many bits of exponent mean.
double value_of(unsigned bits, int exponent_bits);

report fp64();  // compiled without flags
report fp32();  // compiled with them

}  // namespace flags
