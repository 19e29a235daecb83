// The result for programs: summary.json, an array of rows.
#pragma once
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "row.hpp"

namespace tcnca::bench {

namespace detail {
inline std::string json(double v) {
  if (!std::isfinite(v)) return "null";
  char text[40];
  std::snprintf(text, sizeof text, "%.6g", v);
  return text;
}
inline std::string json(std::string const& v) {
  std::string text = "\"";
  for (char const c : v) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text + '"';
}
inline std::string json(index v) { return std::to_string(v); }
}  // namespace detail

/// A row as a JSON object. What was not measured is null.
inline std::string to_json(row const& r) {
  using detail::json;
  std::string text;
  auto const field = [&](char const* key, std::string const& value) {
    text += text.empty() ? "{\"" : ", \"";
    text += key;
    text += "\": ";
    text += value;
  };
  field("direction", json(std::string(to_string(r.direction))));
  field("backend", json(r.backend));
  field("dtype", json(r.dtype));
  field("taps", json(index{r.shape.taps}));
  field("depth", json(index{r.shape.levels()}));
  field("dilation_base", json(index{r.shape.dilation_base}));
  field("receptive_field", json(r.shape.receptive_field()));
  field("batch", json(r.p.batch));
  field("channels", json(r.p.channels));
  field("length", json(r.p.length));
  field("threads", json(index{r.p.threads}));
  field("conv_ms", json(r.conv_ms));
  field("fft_given_ms", json(r.fft_given_ms));
  field("fft_generated_ms", json(r.fft_generated_ms));
  field("scan_ms", json(r.scan_ms));
  field("levels_ms", json(r.levels_ms));
  field("speedup_given", json(r.speedup(r.fft_given_ms)));
  field("speedup_generated", json(r.speedup(r.fft_generated_ms)));
  field("percent_of_limit", json(r.percent_of_limit()));
  field("limit", json(std::string(r.copy_binds() ? "copy" : "fma")));
  field("fma_gflops", json(r.fma_rate * 1e-9));
  field("copy_gbytes_per_s", json(r.copy_rate * 1e-9));
  return text + "}";
}

inline void write_summary(std::vector<row> const& rows, std::string const& file) {
  std::ofstream out(file);
  out << "[";
  for (std::size_t i = 0; i < rows.size(); i++) out << (i == 0 ? "\n  " : ",\n  ") << to_json(rows[i]);
  out << "\n]\n";
  if (!out.flush()) throw std::runtime_error("cannot write " + file);
}

}  // namespace tcnca::bench
