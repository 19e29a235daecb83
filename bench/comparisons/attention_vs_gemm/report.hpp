// A row of the results, the table on the terminal and the JSON summary.
#pragma once
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../support/machine.hpp"
#include "../../support/table.hpp"
#include "fixture.hpp"

namespace tcnca::bench {

struct baseline_time {
  std::string name, how;  ///< how: block size and threading
  double ms = not_measured;
};

struct attention_row {
  pass direction = pass::forward;
  std::string backend, dtype, peak_name;
  attention_problem p;
  double ms = not_measured, peak_rate = 0;
  std::vector<baseline_time> baselines;

  double operations() const { return useful_operations(p, direction == pass::backward); }
  double rate(double milliseconds) const { return operations() / milliseconds * 1e3; }
  double percent(double milliseconds) const { return 100 * rate(milliseconds) / peak_rate; }
  std::string block() const {
    return backend + ", " + dtype + ", " + to_string(p.function) + (p.causal ? ", causal, " : ", ") +
           to_string(direction);
  }
};

/// A block per backend, element type, function, mask and direction.
inline void print_table(std::vector<attention_row> const& rows, std::FILE* out) {
  using detail::cell, detail::milliseconds;
  std::string last;
  for (auto const& r : rows) {
    if (std::string const block = r.block(); block != last) {
      std::fprintf(out, "\n%s: batch %lld, heads %lld", block.c_str(), static_cast<long long>(r.p.batch),
                   static_cast<long long>(r.p.heads));
      if (r.backend == "cpu") std::fprintf(out, ", %d thread%s", r.p.threads, r.p.threads == 1 ? "" : "s");
      std::fprintf(out, "\n%6s %5s %5s %7s |%9s %9s %8s |", "chunk", "key", "value", "length", "tcnca", "", "% of");
      for (auto const& o : r.baselines) std::fprintf(out, "%9s %8s %8s |", o.name.c_str(), "% of", "tcnca");
      std::fprintf(out, "\n%6s %5s %5s %7s |%9s %9s %8s |", "", "dim", "dim", "", "ms", "GFLOP/s", "peak");
      for (size_t i = 0; i < r.baselines.size(); i++) std::fprintf(out, "%9s %8s %8s |", "ms", "peak", "over it");
      std::fputc('\n', out);
      last = block;
    }
    std::fprintf(out, "%6lld %5lld %5lld %7lld |%s %s %s |", static_cast<long long>(r.p.chunk),
                 static_cast<long long>(r.p.key_dim), static_cast<long long>(r.p.value_dim),
                 static_cast<long long>(r.p.length), milliseconds(r.ms, 9).c_str(),
                 cell(r.rate(r.ms) * 1e-9, 9).c_str(), cell(r.percent(r.ms), 8, "%").c_str());
    for (auto const& o : r.baselines)
      std::fprintf(out, "%s %s %s |", milliseconds(o.ms, 9).c_str(), cell(r.percent(o.ms), 8, "%").c_str(),
                   cell(o.ms / r.ms, 8, "x").c_str());
    std::fputc('\n', out);
  }
}

/// A row as a JSON object; null where nothing was measured.
inline std::string to_json(attention_row const& r) {
  using detail::json;
  std::string text;
  auto const field = [&](std::string const& key, std::string const& value) {
    text += (text.empty() ? "{\"" : ", \"") + key + "\": " + value;
  };
  field("direction", json(std::string(to_string(r.direction))));
  field("backend", json(r.backend));
  field("dtype", json(r.dtype));
  field("function", json(std::string(to_string(r.p.function))));
  field("causal", r.p.causal ? "true" : "false");
  field("batch", json(r.p.batch));
  field("heads", json(r.p.heads));
  field("length", json(r.p.length));
  field("chunk", json(r.p.chunk));
  field("key_dim", json(r.p.key_dim));
  field("value_dim", json(r.p.value_dim));
  field("threads", json(index_t{r.p.threads}));
  field("ms", json(r.ms));
  field("gflops", json(r.rate(r.ms) * 1e-9));
  field("percent_of_peak", json(r.percent(r.ms)));
  field("peak_gflops", json(r.peak_rate * 1e-9));
  field("peak", json(r.peak_name));
  for (auto const& o : r.baselines) {
    std::string key = o.name;
    for (char& c : key) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c == ' ' ? '_' : c;
    field(key + "_ms", json(o.ms));
    field(key + "_percent_of_peak", json(r.percent(o.ms)));
    field(key + "_how", json(o.how));
    field("over_" + key, json(o.ms / r.ms));
  }
  return text + "}";
}

inline void write_summary(std::vector<attention_row> const& rows, machine_record const& machine,
                          std::string const& file) {
  std::ofstream out(file);
  std::vector<std::string> lines;
  for (auto const& r : rows) lines.push_back(to_json(r));
  write_json(out, machine, {}, lines);
  if (!out.flush()) throw std::runtime_error(file + " cannot be written.");
}

}  // namespace tcnca::bench
