// The command line of layer_step.
#pragma once
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "../../support/command_line.hpp"
#include "problem.hpp"

namespace tcnca::bench {

struct step_options {
  std::vector<index_t> widths{64, 128, 256, 512}, lengths;
  index_t batch = 1, chunk = 0;
  int threads = int(std::max(1u, std::thread::hardware_concurrency()));
  double min_time = 2;
  bool processor_time = false;
  std::string output = "layer_step.json";

  /// Default lengths: up to 16384 for 512 channels, the paper's width, else up to 65536.
  std::vector<step_problem> problems() const {
    std::vector<step_problem> all;
    for (step_problem p : step_models) {
      if (std::find(widths.begin(), widths.end(), p.channels) == widths.end()) continue;
      if (chunk > 0) p.chunk = chunk;
      p.batch = batch, p.threads = threads;
      std::vector<index_t> const known = p.channels == 512 ? std::vector<index_t>{2048, 4096, 8192, 16384}
                                                           : std::vector<index_t>{1024, 4096, 16384, 65536};
      for (index_t const l : lengths.empty() ? known : lengths) p.length = l, all.push_back(p);
    }
    return all;
  }
};

/// Throws usage_error (also for --help).
inline step_options parse_step(int argc, char const* const* argv) {
  step_options o;
  command_line line("layer_step",
                    "One layer and its feed-forward block, forward and backward in fp32 on the CPU: TCNCA's "
                    "convolutions against MEGA's EMA,\n"
                    "as a scan and by FFT. Prints a table and writes a summary (JSON).");
  line.list("--widths", o.widths, "Channels of the models", one_of({"64", "128", "256", "512"}));
  line.list("--lengths", o.lengths,
            "Positions of a sequence (default: 2048 to 16384 with 512 channels, else 1024 to 65536)",
            whole_number(1, index_t{1} << 24));
  line.option("--batch", o.batch, "Sequences", whole_number(1, 4096));
  line.option("--chunk", o.chunk, "Positions of a chunk (default: the model's)", whole_number(1, 16384), false);
  line.option("--threads", o.threads, "CPU threads", whole_number(1, 1024));
  line.option("--min-time", o.min_time, "Minimum time of the measurements of a length in seconds", number(0.001, 3600));
  line.flag("--processor-time", o.processor_time,
            "Measure CPU time instead of wall time, for a busy machine; one thread");
  line.option("--output", o.output, "The summary to write", writable_file());
  line.parse(argc, argv);
  if (o.processor_time && !line.given("--threads")) o.threads = 1;
  if (o.processor_time && o.threads != 1)
    throw usage_error("--processor-time: one thread only is counted, and --threads is " + std::to_string(o.threads) +
                      ".");
  for (auto const& p : o.problems())  // activations of the layer and of its parts
    require_memory("--lengths: " + std::to_string(p.length) + " with " + std::to_string(p.channels) +
                       " channels and batch " + std::to_string(p.batch),
                   4. * sizeof(float) * double(p.batch) * double(p.length) *
                       double(4 * p.columns() + 4 * p.hidden + 8 * p.channels));
  return o;
}

}  // namespace tcnca::bench
