// The extents of a benchmark on sequences, and the work that counts for it.
#pragma once
#include <cstdio>
#include <string>

#include <tcnca/conv_stack/shape.hpp>
#include "contender.hpp"

namespace tcnca::bench {

struct problem {
  index_t batch = 0, channels = 0, length = 0;
  int threads = 1;
  index_t elements() const { return batch * channels * length; }
};

/// "K4f4D6": taps, base of the dilations, levels.
inline std::string stack_name(conv_stack_shape const& s) {
  char name[64];
  std::snprintf(name, sizeof name, "K%df%dD%d", s.taps, s.dilation_base, s.levels());
  return name;
}

/// Floating-point operations of a direct evaluation of the stack: 2 for each tap inside the sequence. Taps before its
/// start are not counted, so that short sequences do not appear fast. Backward counts three times as many:
/// recomputation, grad_x and grad_weight.
inline double useful_operations(conv_stack_shape const& s, problem const& p, pass direction) {
  double taps = 0;
  for (int layer = 0; layer < s.layers(); layer++)
    for (index_t k = 0; k < s.taps; k++)
      taps += static_cast<double>(max_of<index_t>(p.length - k * s.dilation(layer), 0));
  return (direction == pass::forward ? 2.0 : 6.0) * taps * static_cast<double>(p.batch * p.channels);
}

/// Bytes of compulsory memory traffic: x and y, or x, grad_y and grad_x.
inline double useful_bytes(problem const& p, pass direction, size_t element_bytes) {
  return (direction == pass::forward ? 2.0 : 3.0) * static_cast<double>(p.elements()) *
         static_cast<double>(element_bytes);
}

}  // namespace tcnca::bench
