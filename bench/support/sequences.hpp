// Sequences that contenders share.
#pragma once
#include "problem.hpp"

namespace tcnca::bench {

/// In the layout of the contender, in memory of the device.
template <class T>
struct sequences {
  problem p;
  T const* x;
  T const* grad_y;
  T* y;
  T* grad_x;
};

}  // namespace tcnca::bench
