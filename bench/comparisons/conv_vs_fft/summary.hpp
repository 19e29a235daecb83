// The JSON summary: {"machine": ..., "rows": [...]}.
#pragma once
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../support/machine.hpp"
#include "row.hpp"

namespace tcnca::bench {

/// A row as a JSON object; null where nothing was measured.
inline std::string to_json(row const& r) {
  using detail::json;
  std::string text;
  auto const field = [&](std::string const& key, std::string const& value) {
    text += text.empty() ? "{\"" : ", \"";
    text += key;
    text += "\": ";
    text += value;
  };
  auto const limit = [&](std::string const& prefix, time_limit const& of, double ms) {
    field(prefix + "percent_of_limit", json(of.percent(ms)));
    field(prefix + "limit", of.known() ? json(std::string(of.name())) : "null");
    field(prefix + "fma_gflops", json(of.fma_rate * 1e-9));
    field(prefix + "copy_gbytes_per_s", json(of.copy_rate * 1e-9));
  };
  field("direction", json(std::string(to_string(r.direction))));
  field("backend", json(r.backend));
  field("dtype", json(r.dtype));
  field("taps", json(index_t{r.shape.taps}));
  field("depth", json(index_t{r.shape.levels()}));
  field("dilation_base", json(index_t{r.shape.dilation_base}));
  field("receptive_field", json(r.shape.receptive_field()));
  field("batch", json(r.p.batch));
  field("channels", json(r.p.channels));
  field("length", json(r.p.length));
  field("threads", json(index_t{r.p.threads}));
  field("conv_ms", json(r.conv_ms));
  field("fft_given_ms", json(r.fft_given_ms));
  field("fft_generated_ms", json(r.fft_generated_ms));
  field("scan_ms", json(r.scan_ms));
  field("levels_ms", json(r.levels_ms));
  field("torch_fft_ms", json(r.torch_fft_ms));
  field("torch_conv1d_ms", json(r.torch_conv1d_ms));
  field("speedup_given", json(r.speedup(r.fft_given_ms)));
  field("speedup_generated", json(r.speedup(r.fft_generated_ms)));
  limit("", r.limit, r.conv_ms);
  field("one_thread_ms", json(r.one_thread_ms));
  limit("one_thread_", r.one_thread_limit, r.one_thread_ms);
  return text + "}";
}

/// `opponents`: their names and versions.
inline void write_summary(std::vector<row> const& rows, machine_record const& machine, bool with_huge_pages,
                          std::string const& opponents, std::string const& file) {
  std::ofstream out(file);
  std::vector<std::string> lines;
  for (row const& r : rows) lines.push_back(to_json(r));
  write_json(out, machine, {{"huge_pages", with_huge_pages ? "true" : "false"}, {"opponents", detail::json(opponents)}},
             lines);
  if (!out.flush()) throw std::runtime_error(file + " cannot be written.");
}

}  // namespace tcnca::bench
