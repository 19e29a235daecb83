// The table on the terminal.
#pragma once
#include <cstdio>
#include <string>
#include <vector>

#include "../../support/table.hpp"
#include "row.hpp"

namespace tcnca::bench {

/// A block per backend, element type and direction.
inline void print_table(std::vector<row> const& rows, std::FILE* out) {
  using detail::cell, detail::milliseconds;
  row const* last = nullptr;
  for (auto const& r : rows) {
    bool const fresh =
        last == nullptr || last->backend != r.backend || last->dtype != r.dtype || last->direction != r.direction;
    if (fresh) {
      std::fprintf(out, "\n%s, %s, %s: batch %lld, channels %lld", r.backend.c_str(), r.dtype.c_str(),
                   to_string(r.direction), static_cast<long long>(r.p.batch), static_cast<long long>(r.p.channels));
      if (r.backend == "cpu") std::fprintf(out, ", %d thread%s", r.p.threads, r.p.threads == 1 ? "" : "s");
      char const* const levels = r.backend == "cpu" ? "oneDNN" : "levels";
      std::fprintf(out, "\n%-9s %7s %8s |%9s %9s %9s %9s %9s |%8s %8s %8s %8s | %% of limit\n", "", "recept.", "",
                   "stack", "FFT,kern.", "FFT,kern.", "", levels, "over FFT", "over FFT", "over", "over");
      std::fprintf(out, "%-9s %7s %8s |%9s %9s %9s %9s %9s |%8s %8s %8s %8s |\n", "stack", "field", "length", "ms",
                   "given ms", "gener. ms", "scan ms", "ms", "given", "gener.", "scan", levels);
    }
    if (!fresh && last->p.length != r.p.length) std::fputc('\n', out);
    std::fprintf(out, "%-9s %7lld %8lld |%s %s %s %s %s |%s %s %s %s | %s %s\n", stack_name(r.shape).c_str(),
                 static_cast<long long>(r.shape.receptive_field()), static_cast<long long>(r.p.length),
                 milliseconds(r.conv_ms, 9).c_str(), milliseconds(r.fft_given_ms, 9).c_str(),
                 milliseconds(r.fft_generated_ms, 9).c_str(), milliseconds(r.scan_ms, 9).c_str(),
                 milliseconds(r.levels_ms, 9).c_str(), cell(r.speedup(r.fft_given_ms), 8, "x").c_str(),
                 cell(r.speedup(r.fft_generated_ms), 8, "x").c_str(), cell(r.speedup(r.scan_ms), 8, "x").c_str(),
                 cell(r.speedup(r.levels_ms), 8, "x").c_str(), cell(r.percent_of_limit(), 6, "%").c_str(), r.limit());
    last = &r;
  }
}

}  // namespace tcnca::bench
