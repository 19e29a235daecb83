// The result for a page: a table in Markdown, of one element type and of the shortest, the middle and the longest sequences.
#pragma once
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "table.hpp"

namespace tcnca::bench {

/// `warning`, unless empty, comes first; who was left out, and why, last.
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
      char const* const levels = r.backend == "cpu" ? "oneDNN" : "levels";
      if (!std::isnan(r.fma_rate)) out << "; at best " << cell(r.fma_rate * 1e-9, 0) << " GFLOP/s";
      out << ". Stacks have K taps, dilations that are powers of f, D levels; the FFT's kernel is given,\n"
          << "or generated from the parameters of the average; the scan is the same average as a recurrence. % of "
             "limit: of what the multiply-adds, or a copy\n"
          << "of as many bytes, would take at least.\n\n"
          << "| | stack K f D | receptive field | length | stack ms | FFT ms given / generated | scan ms | " << levels
          << " ms | over FFT given / generated | % of limit |\n|---|---|---|---|---|---|---|---|---|---|\n";
    }
    out << "| " << to_string(r.direction) << " | " << stack_name(r.shape) << " | " << r.shape.receptive_field() << " | "
        << length << " | " << milliseconds(r.conv_ms, 0) << " | " << milliseconds(r.fft_given_ms, 0) << " / "
        << milliseconds(r.fft_generated_ms, 0) << " | " << milliseconds(r.scan_ms, 0) << " | "
        << milliseconds(r.levels_ms, 0) << " | " << cell(r.speedup(r.fft_given_ms), 0, "x") << " / "
        << cell(r.speedup(r.fft_generated_ms), 0, "x") << " | "
        << (r.limit_known() ? std::to_string(std::llround(r.percent_of_limit())) + " " : "") << r.limit() << " |\n";
    last = &r;
  }
  for (auto const& n : left_out) out << "\n" << n << "\n";
  if (!out.flush()) throw std::runtime_error(file + " cannot be written.");
}

}  // namespace tcnca::bench
