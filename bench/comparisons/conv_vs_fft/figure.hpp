// The plot: speed-up over the FFT with a given kernel against length, with the figures of the TCNCA paper as
// references.
#pragma once
#include <string>
#include <vector>

#include "../../support/plot.hpp"
#include "row.hpp"

namespace tcnca::bench {

/// The paper's speed-ups of its convolutions over its FFT recurrence on GPUs, at lengths up to 131k.
inline constexpr double paper_forward = 7.07, paper_backward = 2.86;

inline void write_figure(std::vector<row> const& rows, std::string const& file) {
  plot figure("tcnca::conv_stack against the FFT recurrence");
  std::vector<row const*> heads;  // the first row of each panel
  for (auto const& r : rows) {
    bool fresh = true;
    for (auto const* h : heads)
      fresh = fresh && (h->backend != r.backend || h->dtype != r.dtype || h->direction != r.direction);
    if (fresh) heads.push_back(&r);
  }
  for (auto const* h : heads) {
    bool const forward = h->direction == pass::forward;
    plot_panel panel{std::string(to_string(h->direction)) + ", " + h->dtype + " on " + h->backend,
                     "sequence length",
                     "speed-up over the FFT",
                     {},
                     {}};
    panel.references.push_back({forward ? paper_forward : paper_backward,
                                forward ? "TCNCA paper, forward: 7.07x" : "TCNCA paper, backward: 2.86x"});
    for (auto const& r : rows) {
      if (h->backend != r.backend || h->dtype != r.dtype || h->direction != r.direction) continue;
      std::string const name = stack_name(r.shape) + " (field " + std::to_string(r.shape.receptive_field()) + ")";
      auto line = panel.lines.begin();
      while (line != panel.lines.end() && line->name != name) ++line;
      if (line == panel.lines.end()) line = panel.lines.insert(line, {name, {}});
      line->points.emplace_back(static_cast<double>(r.p.length), r.speedup(r.fft_given_ms));
    }
    figure.add(panel);
  }
  if (rows.empty()) return figure.write(file);
  problem const& p = rows.front().p;
  std::string const threads = rows.front().backend == "cpu" ? ", " + std::to_string(p.threads) + " CPU threads" : "";
  figure.describe("batch " + std::to_string(p.batch) + ", channels " + std::to_string(p.channels) + threads +
                      ", the FFT's kernel given",
                  "FFT: 2L points, fp32, FFTW or cuFFT, the faster of rfft and packed complex transforms; best of "
                  "several calls on one machine");
  figure.write(file);
}

}  // namespace tcnca::bench
