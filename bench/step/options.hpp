// The command line of layer_step.
#pragma once
#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "problem.hpp"

namespace tcnca::bench {

struct step_options {
  std::vector<index> widths{64, 128, 256, 512}, lengths;
  index batch = 1, chunk = 0;
  int threads = int(std::max(1u, std::thread::hardware_concurrency()));
  double min_time = 2;
  std::string output = "layer_step.json";

  /// The paper's width goes to lengths of 16384, the others further.
  std::vector<step_problem> problems() const {
    std::vector<step_problem> all;
    for (step_problem p : step_models) {
      if (std::find(widths.begin(), widths.end(), p.channels) == widths.end()) continue;
      if (chunk > 0) p.chunk = chunk;
      p.batch = batch, p.threads = threads;
      std::vector<index> const known = p.channels == 512 ? std::vector<index>{2048, 4096, 8192, 16384} : std::vector<index>{1024, 4096, 16384, 65536};
      for (index const l : lengths.empty() ? known : lengths) p.length = l, all.push_back(p);
    }
    return all;
  }
};

/// Throws CLI::ParseError (also for --help).
inline step_options parse_step(int argc, char** argv) {
  step_options o;
  CLI::App app{
      "One layer and its feed-forward block, forward and backward in fp32 on the CPU: TCNCA's convolutions against MEGA's average,\n"
      "as a scan and by FFT. Prints a table and writes a summary (JSON)."};
  app.add_option("--widths", o.widths, "Channels of the models")->delimiter(',')->check(CLI::IsMember({64, 128, 256, 512}))->capture_default_str();
  app.add_option("--lengths", o.lengths, "Positions of a sequence (default: 2048 to 16384 with 512 channels, else 1024 to 65536)")
      ->delimiter(',')
      ->check(CLI::Range(index(1), index(1) << 24));
  app.add_option("--batch", o.batch, "Sequences")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--chunk", o.chunk, "Positions of a chunk (default: the model's)")->check(CLI::Range(1, 16384));
  app.add_option("--threads", o.threads, "Threads, for everyone")->check(CLI::Range(1, 4096))->capture_default_str();
  app.add_option("--min-time", o.min_time, "Seconds that the measurements of a length take at least")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--output", o.output, "The summary to write")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (CLI::ParseError const& e) {
    app.exit(e);
    throw;
  }
  return o;
}

}  // namespace tcnca::bench
