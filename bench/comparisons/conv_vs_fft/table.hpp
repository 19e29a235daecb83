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
      std::fprintf(out, "; ms of a contender and its ratio to the stack\n%-9s %7s %7s |%7s %-10s |%15s |", "stack",
                   "field", "length", "stack", "% of limit", "one thread, %");
      for (char const* const name :
           {"FFT", "FFT, kernel", "torch.fft", "scan", r.backend == "cpu" ? "oneDNN" : "levels", "torch conv1d"})
        std::fprintf(out, " %14s |", name);
      std::fputc('\n', out);
    }
    if (!fresh && last->p.length != r.p.length) std::fputc('\n', out);
    std::fprintf(out, "%-9s %7lld %7lld |%s %s %-7s|%s %s |", stack_name(r.shape).c_str(),
                 static_cast<long long>(r.shape.receptive_field()), static_cast<long long>(r.p.length),
                 milliseconds(r.conv_ms, 7).c_str(), cell(r.percent_of_limit(), 3).c_str(), r.limit.name(),
                 milliseconds(r.one_thread_ms, 9).c_str(),
                 cell(r.one_thread_limit.percent(r.one_thread_ms), 5).c_str());
    for (double const ms :
         {r.fft_given_ms, r.fft_generated_ms, r.torch_fft_ms, r.scan_ms, r.levels_ms, r.torch_conv1d_ms})
      std::fprintf(out, "%s %s |", milliseconds(ms, 7).c_str(), cell(r.speedup(ms), 7, "x").c_str());
    std::fputc('\n', out);
    last = &r;
  }
}

}  // namespace tcnca::bench
