// The Markdown table of the demo: one element type; the shortest, the middle and the longest length.
#pragma once
#include <cmath>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "table.hpp"

namespace tcnca::bench {

/// Begins with `warning`, if it is not empty, and ends with the contenders that were left out and the reasons.
inline void write_report(std::vector<row> const& rows, std::string const& warning, notes const& left_out,
                         std::string const& file) {
  using detail::cell, detail::milliseconds;
  std::set<index_t> all;
  for (row const& r : rows) all.insert(r.p.length);
  std::vector<index_t> const lengths(all.begin(), all.end());
  std::ofstream out(file);
  if (!warning.empty()) out << "**" << warning << "**\n\n";
  row const* last = nullptr;
  for (row const& r : rows) {
    index_t const length = r.p.length;
    if (r.dtype != rows.front().dtype ||
        (length != lengths.front() && length != lengths[lengths.size() / 2] && length != lengths.back()))
      continue;
    if (last == nullptr || last->backend != r.backend) {
      out << (last == nullptr ? "" : "\n") << r.backend << ", " << r.dtype << ", batch " << r.p.batch << ", channels "
          << r.p.channels;
      if (r.backend == "cpu") out << ", threads " << r.p.threads;
      if (!std::isnan(r.limit.fma_rate)) out << "; FMA peak " << cell(r.limit.fma_rate * 1e-9, 0) << " GFLOP/s";
      out << ". Stacks have K taps, dilations that are powers of f, D levels.\nThe FFT's kernel is given, or generated "
             "from the EMA's parameters; the scan is the same EMA as a recurrence.\n% of limit: of the time that the "
             "FMA peak or the copy bandwidth allows.\n\n"
          << "| | stack K f D | receptive field | length | stack ms | % of limit | FFT ms given / generated | scan ms "
             "| "
          << (r.backend == "cpu" ? "oneDNN" : "levels")
          << " ms | torch ms fft / conv1d | over FFT given / generated "
             "|\n|---|---|---|---|---|---|---|---|---|---|---|\n";
    }
    out << "| " << to_string(r.direction) << " | " << stack_name(r.shape) << " | " << r.shape.receptive_field() << " | "
        << length << " | " << milliseconds(r.conv_ms, 0) << " | "
        << (r.limit.known() ? std::to_string(std::llround(r.percent_of_limit())) + " " : "") << r.limit.name() << " | "
        << milliseconds(r.fft_given_ms, 0) << " / " << milliseconds(r.fft_generated_ms, 0) << " | "
        << milliseconds(r.scan_ms, 0) << " | " << milliseconds(r.levels_ms, 0) << " | "
        << milliseconds(r.torch_fft_ms, 0) << " / " << milliseconds(r.torch_conv1d_ms, 0) << " | "
        << cell(r.speedup(r.fft_given_ms), 0, "x") << " / " << cell(r.speedup(r.fft_generated_ms), 0, "x") << " |\n";
    last = &r;
  }
  for (auto const& sentence : equal_field_sentences(rows)) out << "\n" << sentence << "\n";
  for (auto const& n : left_out) out << "\n" << n << "\n";
  if (!out.flush()) throw std::runtime_error(file + " cannot be written.");
}

}  // namespace tcnca::bench
