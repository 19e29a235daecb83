// The command line of conv_extents.
#pragma once
#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "../../support/command_line.hpp"

namespace tcnca::bench {

struct extents_options {
  int threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::string> tables{"layouts", "tokens", "short", "pages"};
  double row_seconds = 0.5;
  bool smoke = false;
  std::string output = "conv_extents.json";
};

/// Throws usage_error (also for --help).
inline extents_options parse_extents(int argc, char const* const* argv) {
  extents_options o;
  command_line line("conv_extents",
                    "Convolution stacks on the CPU in fp32: channels-last against channels-first, a few tokens with a "
                    "state, many short sequences, and 2 MB pages against 4 KB pages.\n"
                    "Prints tables and writes a summary (JSON).");
  line.list("--tables", o.tables, "What to measure", one_of({"layouts", "tokens", "short", "pages"}));
  line.option("--threads", o.threads, "CPU threads", whole_number(1, 1024));
  line.option("--row-seconds", o.row_seconds, "Time of the measurements of a row", number(0.001, 3600));
  line.flag("--smoke", o.smoke, "A short run of under a minute: 0.05 seconds a row");
  line.option("--output", o.output, "The summary to write", writable_file());
  line.parse(argc, argv);
  if (o.smoke && !line.given("--row-seconds")) o.row_seconds = 0.05;
  return o;
}

}  // namespace tcnca::bench
