// A row of the results: a stack at one length, with one direction, element type and backend, and its baselines.
#pragma once
#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "../../support/limit.hpp"
#include "../../support/table.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

/// Times are in milliseconds; NaN where nothing was measured, and then a note gives the reason.
struct row {
  pass direction = pass::forward;
  std::string backend, dtype;
  conv_stack_shape shape;
  problem p;
  double conv_ms = not_measured, fft_given_ms = not_measured, fft_generated_ms = not_measured, scan_ms = not_measured,
         levels_ms = not_measured, torch_fft_ms = not_measured, torch_conv1d_ms = not_measured;
  double one_thread_ms = not_measured;  ///< the stack with one thread, where the row has more
  time_limit limit, one_thread_limit;   ///< of the stack; see useful_operations and useful_bytes

  double speedup(double other_ms) const { return other_ms / conv_ms; }
  double percent_of_limit() const { return limit.percent(conv_ms); }
  std::string name() const {
    return backend + ", " + dtype + ", " + to_string(direction) + ", " + stack_name(shape) + ", length " +
           std::to_string(p.length);
  }
};

/// The speed-up over the FFT at equal receptive fields, at the longest length: of the fastest stack that sees all of
/// the sequence, as the FFT does. A sentence per backend, element type and direction.
inline std::vector<std::string> equal_field_sentences(std::vector<row> const& rows) {
  index_t longest = 0;
  for (row const& r : rows) longest = std::max(longest, r.p.length);
  std::map<std::string, row const*> fastest;
  for (row const& r : rows) {
    if (r.p.length != longest || r.shape.receptive_field() < longest) continue;
    row const*& best = fastest[r.backend + ", " + r.dtype + ", " + to_string(r.direction)];
    if (best == nullptr || r.conv_ms < best->conv_ms) best = &r;
  }
  std::vector<std::string> sentences;
  for (auto const& [name, r] : fastest)
    sentences.push_back(name + ", length " + std::to_string(longest) +
                        ": the fastest stack that sees the whole sequence, as the FFT does, is " +
                        stack_name(r->shape) + ", " + detail::cell(r->speedup(r->fft_given_ms), 0, "x") +
                        " over the FFT.");
  return sentences;
}

/// Sentences under the tables, each once: why something is missing, or how it was done.
using notes = std::vector<std::string>;
inline void add_note(notes& all, std::string const& note) {
  for (auto const& n : all)
    if (n == note) return;
  all.push_back(note);
}

}  // namespace tcnca::bench
