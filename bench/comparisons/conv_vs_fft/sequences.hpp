// The sequences that the contenders of an conv_fixture share, and the functions that bind the library's operations to them. The functions are
// compiled once for each machine and element type: in stack_cpu_*.cpp, scan_cpu.cpp and conv_vs_fft.cu.
#pragma once
#include "fixture.hpp"

namespace tcnca::bench {

/// In compared_layout, in the memory of the machine.
template <class T>
struct sequences {
  problem p;
  T const* x;
  T const* grad_y;
  T* y;
  T* grad_x;
};

/// Stack `which` of compared_stacks with weights [layers, taps, channels].
template <class T>
contender make_cpu_stack(size_t which, pass direction, sequences<T> const& s, T const* weight);

/// The recurrence itself, by the library's scan.
template <class T>
contender make_cpu_scan(pass direction, sequences<T> const& s, ema_parameters const& ema);

}  // namespace tcnca::bench
