// A row of the results: a stack at one length, with one direction, element type and backend, and its baselines.
#pragma once
#include <cmath>
#include <string>
#include <vector>

#include "fixture.hpp"

namespace tcnca::bench {

/// Times are in milliseconds; NaN where nothing was measured, and then a note gives the reason.
struct row {
  pass direction = pass::forward;
  std::string backend, dtype;
  conv_stack_shape shape;
  problem p;
  double conv_ms = not_measured, fft_given_ms = not_measured, fft_generated_ms = not_measured, scan_ms = not_measured,
         levels_ms = not_measured;
  double operations = 0, bytes = 0;    ///< of the stack; see useful_operations and useful_bytes
  double fma_rate = 0, copy_rate = 0;  ///< peak rates per second

  /// Lower bounds of the time: by arithmetic, by memory traffic.
  double fma_ms() const { return operations / fma_rate * 1e3; }
  double copy_ms() const { return bytes / copy_rate * 1e3; }
  double speedup(double other_ms) const { return other_ms / conv_ms; }
  bool limit_known() const { return !std::isnan(copy_ms() + fma_ms()); }
  bool copy_binds() const { return copy_ms() > fma_ms(); }
  /// NaN where the peak rates could not be measured.
  double percent_of_limit() const {
    return limit_known() ? 100 * std::fmax(copy_ms(), fma_ms()) / conv_ms : not_measured;
  }
  char const* limit() const { return !limit_known() ? "unknown" : copy_binds() ? "copy" : "fma"; }
  std::string name() const {
    return backend + ", " + dtype + ", " + to_string(direction) + ", " + stack_name(shape) + ", length " +
           std::to_string(p.length);
  }
};

/// Sentences under the tables, each once: why something is missing, or how it was done.
using notes = std::vector<std::string>;
inline void add_note(notes& all, std::string const& note) {
  for (auto const& n : all)
    if (n == note) return;
  all.push_back(note);
}

}  // namespace tcnca::bench
