// The sequences that the contenders of a fixture share, and the functions that bind the library's operations to them.
// The functions are compiled once per backend and element type: in stack_cpu_*.cpp, scan_cpu.cpp and conv_vs_fft.cu.
#pragma once
#include "fixture.hpp"

namespace tcnca::bench {

/// In compared_layout, in memory of the device.
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

/// The library's EMA.
template <class T>
contender make_cpu_scan(pass direction, sequences<T> const& s, ema_parameters const& ema);

}  // namespace tcnca::bench
