// The Markdown table and the JSON summary.
#pragma once
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "../../support/machine.hpp"
#include "../../support/table.hpp"
#include "problem.hpp"

namespace tcnca::bench {

namespace detail {
/// Removes leading blanks.
inline std::string bare(std::string const& s) { return s.substr(s.find_first_not_of(' ')); }
inline std::string times(double v) { return bare(cell(v, 8)) + "x"; }
}  // namespace detail

inline void print_table(std::vector<step_row> const& rows, std::FILE* out) {
  using detail::bare, detail::cell, detail::milliseconds, detail::times;
  index_t width = 0;
  for (auto const& r : rows) {
    auto const& p = r.p;
    if (p.channels != width)
      std::fprintf(out,
                   "\nd %ld, h %ld, z %ld, feed-forward %ld, chunk %ld, batch %ld, %d thread%s\n\n"
                   "| | length | | step ms | mixer %% | products %% (of the peak) | attention %% | gates %% | rest %% "
                   "| over MEGA FFT | attainable | mixers alone |\n"
                   "|---|---|---|---|---|---|---|---|---|---|---|---|\n",
                   long(p.channels), long(p.value_dim), long(p.key_dim), long(p.hidden), long(p.chunk), long(p.batch),
                   p.threads, p.threads == 1 ? "" : "s");
    width = p.channels;
    for (bool const backward : {false, true})
      for (step_mixer const m : step_mixers) {
        double const ms = r.ms(m, backward);
        auto const share = [&](double v) { return bare(cell(100 * v / ms, 8)); };
        bool const no_mixer = m == step_mixer::nothing;
        double const products = r.part_ms(step_part::products, backward);
        std::fprintf(out, "| %s | %ld | %s | %s | %s | %s (%s) | %s | %s | %s | %s | %s | %s |\n",
                     backward ? "backward" : "forward", long(p.length), to_string(m), bare(milliseconds(ms, 9)).c_str(),
                     no_mixer ? "" : share(r.mixer_ms(m, backward)).c_str(), share(products).c_str(),
                     bare(cell(100 * r.product_operations(backward) / products * 1e3 / r.fma_rate, 8)).c_str(),
                     share(r.part_ms(step_part::attention, backward)).c_str(),
                     share(r.part_ms(step_part::gates, backward)).c_str(), share(r.rest_ms(m, backward)).c_str(),
                     times(r.over_fft(m, backward)).c_str(), times(r.attainable(backward)).c_str(),
                     no_mixer ? "" : times(r.mixer_over_fft(m, backward)).c_str());
      }
  }
}

inline std::string to_json(step_row const& r, step_mixer m, bool backward) {
  using detail::json;
  std::string text;
  auto const field = [&](std::string const& key, std::string const& value) {
    text += (text.empty() ? "{\"" : ", \"") + key + "\": " + value;
  };
  field("direction", json(std::string(backward ? "backward" : "forward")));
  field("mixer", json(std::string(to_string(m))));
  field("channels", json(r.p.channels)), field("value_dim", json(r.p.value_dim)), field("key_dim", json(r.p.key_dim)),
      field("hidden", json(r.p.hidden));
  field("chunk", json(r.p.chunk)), field("batch", json(r.p.batch)), field("length", json(r.p.length)),
      field("threads", json(index_t{r.p.threads}));
  field("step_ms", json(r.ms(m, backward))), field("mixer_ms", json(r.mixer_ms(m, backward)));
  field("products_ms", json(r.part_ms(step_part::products, backward))),
      field("attention_ms", json(r.part_ms(step_part::attention, backward)));
  field("gates_ms", json(r.part_ms(step_part::gates, backward))), field("rest_ms", json(r.rest_ms(m, backward)));
  field("over_fft", json(r.over_fft(m, backward))), field("attainable", json(r.attainable(backward)));
  field("mixer_over_fft", m == step_mixer::nothing ? "null" : json(r.mixer_over_fft(m, backward)));
  return text + "}";
}

/// What all rows share, besides the machine record.
struct step_origin {
  std::string products;  ///< the library of the matrix products
  double fma_rate = 0;
  bool processor_time = false;  ///< else wall time
};

inline void write_summary(std::vector<step_row> const& rows, machine_record const& machine, step_origin const& o,
                          std::string const& file) {
  using detail::json;
  std::ofstream out(file);
  std::vector<std::string> lines;
  for (auto const& r : rows)
    for (bool const backward : {false, true})
      for (step_mixer const m : step_mixers) lines.push_back(to_json(r, m, backward));
  write_json(out, machine,
             {{"products", json(o.products)},
              {"fma_gflops", json(o.fma_rate * 1e-9)},
              {"clock", json(std::string(o.processor_time ? "processor" : "wall"))},
              {"dtype", json(std::string("fp32"))}},
             lines);
  if (!out.flush()) throw std::runtime_error(file + " cannot be written.");
}

}  // namespace tcnca::bench
